"""The Spark session of a prepare: the one that is there, else one of its own; what is missing is said first."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig

_CASE_SENSITIVE = "spark.sql.caseSensitive"


@contextmanager
def session_of(config: DataConfig) -> Iterator[SparkSession]:
    """The active session, which stays as it is, or a new one of ``data.spark_master``, which is stopped at the end.

    Raises ``ConfigError`` where no session can be had, ``DataError`` for work that Spark has given up.
    """
    there = SparkSession.getActiveSession()
    session = there or _new_session(config)
    try:
        with _names_by_case(session):
            yield session
    except (PySparkException, Py4JError) as error:
        raise DataError(
            f"data.engine=spark: Spark has given up: {_first_line(error)}; fix that (its log says more) and prepare "
            f"again"
        ) from error
    finally:
        if there is None:
            session.stop()


@contextmanager
def _names_by_case(session: SparkSession) -> Iterator[None]:
    """Features ``price`` and ``Price`` are two, as in the embedded engine; to Spark they are one otherwise."""
    before = session.conf.get(_CASE_SENSITIVE)
    session.conf.set(_CASE_SENSITIVE, "true")
    try:
        yield
    finally:
        with suppress(PySparkException, Py4JError):  # a session that has ended has nothing to put back
            session.conf.set(_CASE_SENSITIVE, before)


def _new_session(config: DataConfig) -> SparkSession:
    is_remote = bool(os.environ.get("SPARK_REMOTE"))
    if not is_remote and not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise ConfigError(
            "data.engine=spark needs Java 17 or newer, and there is neither JAVA_HOME nor java on the PATH; install "
            "it (Debian: apt-get install openjdk-17-jre-headless), or set SPARK_REMOTE=sc://HOST to use another's"
        )
    if is_remote and config.spark_master:
        raise ConfigError(
            f"data.spark_master={config.spark_master} and SPARK_REMOTE={os.environ['SPARK_REMOTE']} name two "
            f"clusters; leave one out"
        )
    if not is_remote and (config.spark_master or "local").startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the python3 of the PATH, which may lack us
    builder = SparkSession.builder.appName("shardrec prepare")
    if config.spark_master:
        builder = builder.master(config.spark_master)
    try:
        return builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise ConfigError(
            f"data.engine=spark: no session could be had of data.spark_master={config.spark_master or '(unset)'}, "
            f"SPARK_REMOTE={os.environ.get('SPARK_REMOTE', '(unset)')}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
