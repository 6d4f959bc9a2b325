"""Values that nobody means, for every key of every verb."""

from configs.reference import Key, cluster_keys, run_keys, server_keys

NUMBERS = [
    "0", "-1", "1", "3", "-5", "0.5", "1e-300", "1e30", "1e400", "nan", "inf", "-inf", "NaN", "100000", "1" + "0" * 9,
    "1" + "0" * 11, "1" + "0" * 19, str(2**31), str(2**63), str(2**64), "9" * 5000, "0x10", "1_000",
    "ten", "true", "", "null", "None",
]  # fmt: skip
TEXTS = [
    "/", ".", "..", "~", "~nobody/x", "", " ", "x" * 5000, "a\nb", "a\tb", "é", "\udcff", "$HOME", "${seed}", "${a",
    "${}", "${oc.env:NO_SUCH}", "%s", "%j", "'", '"', "\\", ";", "a;b", "a=b", "-x", "--help", "s3://", "s3://b", "ftp://a/b",
    "file:///", "http://", "/dev/null", "/proc/self/mem", "/etc/passwd", "[]", "[a", "{a: b}", "a,b", "null", "1e5",
]  # fmt: skip
SHAPES = [
    "[]",
    "{}",
    "[1,2]",
    "{a: b}",
    "[[[]]]",
    "[" * 300 + "]" * 300,
    "a,b",
    "range(3)",
    "!!python/name:os.system",
]


def values_of(key: Key) -> list[str]:
    """What is tried for ``key``: of its own kind, and of every other."""
    numbers = NUMBERS if _is_number(key) else NUMBERS[::4]
    return list(dict.fromkeys([*numbers, *(TEXTS if not _is_number(key) else TEXTS[::5]), *SHAPES, *key.takes]))


def all_keys() -> list[Key]:
    """Every key of a run, a cluster and a server; NAME stands for a feature's name."""
    return [*run_keys(), *cluster_keys(), *(key for key in server_keys() if key.name != "config_dir")]


def _is_number(key: Key) -> bool:
    try:
        float(key.default)
    except ValueError:
        return False
    return True
