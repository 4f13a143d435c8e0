/* files.c: stdio on connections: files CASE. */
#include "scene.h"

enum { BODY = 150000, SEED = 41, LINES = 500 };

static const char *chosen;

static bool is(const char *name) {
    return strcmp(chosen, name) == 0;
}

static FILE *opened(int fd, const char *mode) {
    FILE *file = fdopen(fd, mode);
    must(file && fileno(file) == fd);
    must(fdopen(fd, "nonsense") == NULL && errno == EINVAL);
    return file;
}

static void put_body(FILE *file) {
    char *bytes = filled(BODY, SEED);
    must(fwrite(bytes, 1, BODY, file) == BODY && fflush(file) == 0);
    free(bytes);
}

static void get_body(FILE *file) {
    char *bytes = malloc(BODY);
    must(fread(bytes, 1, BODY, file) == BODY && holds(bytes, BODY, SEED, 0));
    free(bytes);
}

/* Lines, answered one by one, and a body behind them. */
static void answer_lines(FILE *in, FILE *out) {
    char *line = NULL;
    size_t room = 0;
    for (int i = 0; i < LINES; i++) {
        must(getline(&line, &room, in) > 0);
        must(fprintf(out, "%d: %s", i, line) > 0 && fflush(out) == 0);
    }
    put_body(out);
    free(line);
}

static void ask_lines(FILE *in, FILE *out) {
    char line[64], expected[64];
    for (int i = 0; i < LINES; i++) {
        must(fprintf(out, "line %d\n", i) > 0 && fflush(out) == 0);
        snprintf(expected, sizeof expected, "%d: line %d\n", i, i);
        must(fgets(line, sizeof line, in) && strcmp(line, expected) == 0);
    }
    get_body(in);
    say("%s: %d lines\n", chosen, LINES);
}

static void serve(int listener) {
    int fd = accept(listener, NULL, NULL);
    must(fd >= 0);
    if (is("after_words")) {
        await(fd);
        tell(fd);
    }
    if (is("printed")) {
        must(dprintf(fd, "%0100000d|%s\n", 7, "end") == 100005);
        await_end(fd);
        close(fd);
        return;
    }
    FILE *in = opened(fd, is("one_file") ? "r+" : "r"), *out = is("one_file") ? in : opened(dup(fd), "w");
    answer_lines(in, out);
    must(fgetc(in) == EOF && feof(in) && !ferror(in));
    if (out != in) must(fclose(out) == 0);
    must(fclose(in) == 0 && fcntl(fd, F_GETFD) == -1);
}

static void consume(uint16_t port) {
    int fd = connect_to(port);
    char *bytes = malloc(BODY);
    if (is("after_words")) {
        tell(fd);
        await(fd);
    }
    if (is("printed")) {
        recv_all(fd, bytes, 100005);
        must(bytes[0] == '0' && memcmp(bytes + 99999, "7|end\n", 6) == 0);
        say("printed\n");
        close(fd);
        return;
    }
    FILE *in = opened(fd, "r"), *out = opened(dup(fd), "w");
    ask_lines(in, out);
    must(fseek(in, 0, SEEK_SET) == -1 && errno == ESPIPE);
    must(fclose(out) == 0 && shutdown(fd, SHUT_WR) == 0 && fgetc(in) == EOF && fclose(in) == 0);
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    return perform(serve, consume);
}
