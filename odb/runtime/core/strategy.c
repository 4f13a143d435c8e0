/* strategy.c: cuts payloads into head, body and tail. */
#include "core/strategy.h"

#include "os/guard.h"

static struct odb_cut cut_static(size_t unaligned, size_t left) {
    struct odb_cut cut = {.head = unaligned < left ? unaligned : left};
    left -= cut.head;
    cut.tail = unaligned < left ? unaligned : left;
    cut.body = left - cut.tail;
    return cut;
}

/* One buffer at a time, unless buffers are whole pages: then it does not matter where one ends. */
static struct odb_cut cut_anticipated(const struct odb_geometry *receiver, size_t left) {
    struct odb_cut cut = {.head = (ODB_PAGE - receiver->offset % ODB_PAGE) % ODB_PAGE};
    size_t buffer = receiver->buffer % ODB_PAGE == 0 && cut.head == 0 ? 0 : receiver->buffer;
    if (buffer > 0 && buffer < left) left = buffer;
    if (cut.head > left) cut.head = left;
    left -= cut.head;
    cut.tail = left % ODB_PAGE;
    cut.body = left - cut.tail;
    return cut;
}

struct odb_cut odb_strategy_cut(const struct odb_options *options, const struct odb_geometry *receiver, size_t left) {
    if (left > ODB_BODY_MAX) left = ODB_BODY_MAX;
    switch (options->strategy) {
    case ODB_STRATEGY_STATIC:
        return cut_static(options->unaligned_size, left);
    case ODB_STRATEGY_ANTICIPATED:
    case ODB_STRATEGY_DIRECT:
        return cut_anticipated(receiver, left);
    default:
        return (struct odb_cut){.body = left};
    }
}
