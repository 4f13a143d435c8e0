"""The machine-readable comparison: one JSON object with every cell, variant and metric."""

import dataclasses

from testbed.analysis import Comparison, Row, Statistic
from testbed.record import Json, encode

SCHEMA = 1


def as_json(comparison: Comparison) -> dict[str, Json]:
    """The comparison as JSON values.  What could not be measured is `{"median": None, "reason": ...}`."""
    return {
        "schema": SCHEMA,
        "run": comparison.run,
        "baseline": comparison.baseline,
        "environment": encode(comparison.environment),
        "cells": [_row(row) for row in comparison.rows],
    }


def _row(row: Row) -> Json:
    return {
        "cell": {item.name: encode(getattr(row.cell, item.name)) for item in dataclasses.fields(row.cell)},
        "variant": row.variant,
        "n": row.n,
        "valid": row.valid,
        "metrics": {name: _statistic(statistic) for name, statistic in row.metrics.items()},
    }


def _statistic(statistic: Statistic) -> Json:
    if statistic.median is None:
        return {"median": None, "reason": statistic.reason}
    return {
        "median": statistic.median,
        "low": statistic.low,
        "high": statistic.high,
        "unit": statistic.unit,
        "ratio": statistic.ratio,
        "p": statistic.p,
    }
