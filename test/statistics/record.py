"""Records what SciPy and statsmodels say of made-up data, for test/standalone/statistics.test.ts to compare ours with.

    apt-get install python3-scipy python3-statsmodels
    python3 test/statistics/record.py > test/statistics/reference.json
"""
import json
import numpy as np
import scipy
import statsmodels
from scipy.stats import bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

random = np.random.default_rng(7)


def wilson(right, count):
    return {"right": right, "count": count, "interval": list(proportion_confint(right, count, alpha=0.05, method="wilson"))}


def exact(only_first, only_second):
    table = [[100, only_first], [only_second, 50]]
    return {"onlyFirst": only_first, "onlySecond": only_second, "p": float(mcnemar(table, exact=True).pvalue)}


def holm(p_values):
    return {"p": p_values, "corrected": multipletests(p_values, method="holm")[1].tolist()}


def draw(sizes):
    """Differences of -1, 0 and 1, with means that vary between the clusters."""
    rows = []
    for cluster, size in enumerate(sizes):
        up = random.uniform(0.02, 0.15)
        down = random.uniform(0.01, 0.08)
        for difference in random.choice([1, -1, 0], size=size, p=[up, down, 1 - up - down]):
            rows.append([f"c{cluster}", int(difference)])
    return rows


def resample(rows):
    """Percentiles of the mean over resampled clusters, or over resampled rows where there is one cluster only."""
    clusters = sorted({cluster for cluster, _ in rows})
    if len(clusters) == 1:
        sums = np.array([difference for _, difference in rows])
        counts = np.ones(len(rows))
    else:
        sums = np.array([sum(d for c, d in rows if c == cluster) for cluster in clusters])
        counts = np.array([sum(1 for c, _ in rows if c == cluster) for cluster in clusters])
    result = bootstrap((sums, counts), lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis), paired=True, vectorized=True,
                       n_resamples=200_000, batch=2_000, confidence_level=0.95, method="percentile", random_state=random)
    return {
        "rows": rows,
        "mean": float(sums.sum() / counts.sum()),
        "interval": [float(result.confidence_interval.low), float(result.confidence_interval.high)],
        "standardError": float(result.standard_error),
        "p": float(2 * min(np.mean(result.bootstrap_distribution <= 0), np.mean(result.bootstrap_distribution >= 0)))
    }


print(json.dumps({
    "versions": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
    "wilson": [wilson(*pair) for pair in [(0, 10), (1, 29), (239, 240), (240, 240), (421, 1642), (7, 9), (5000, 14042)]],
    "mcnemar": [exact(*pair) for pair in [(0, 0), (0, 5), (3, 3), (8, 2), (1, 12), (40, 61), (310, 250), (1200, 1300)]],
    "holm": [holm(p) for p in [[0.01], [0.01, 0.04, 0.03], [0.9, 0.8, 0.002, 0.002], [0.5, 0.6, 0.7], [0.0001, 0.049, 0.2, 0.012, 0.012, 1.0]]],
    "bootstrap": [resample(draw(sizes)) for sizes in [[400], [100] * 12, [20, 35, 150, 60, 80, 45, 90, 30, 120, 10, 70, 55, 40, 25, 66, 99, 31, 72, 18, 54, 63, 47, 88, 27]]]
}, indent=None))
