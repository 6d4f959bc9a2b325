"""How an export is served: every key of `shardrec serve` with its default and its bounds. Never part of a run."""

import ipaddress
from dataclasses import dataclass, field

from configs.bounds import COUNT, check_bounds
from configs.errors import require
from configs.paths import checked_folder, checked_path
from configs.url import is_url

NO_EVENTS = "none"
"""The value of ``serve.events`` with which nothing is kept."""


@dataclass(kw_only=True, slots=True)
class ServeConfig:
    """Where the server listens, what it accepts, and how it gathers requests into batches."""

    host: str = "127.0.0.1"
    """Address to listen on; one that other machines reach needs a token."""
    port: int = 8000
    """Port to listen on; 0: a free one, which the first line names."""
    allow_no_token: bool = False
    """Listen on an address that other machines reach although there is no token."""
    token_file: str = ""
    """File that holds the bearer token of every request; without it the variable SHARDREC_SERVE_TOKEN does."""
    store: str = ""
    """Store with the histories of known users, by raw id; empty: a history comes with the request."""
    events: str = ""
    """Folder of the database of posted events; empty: ``EXPORT.events``, ``none``: events are refused."""
    max_batch_size: int = 16
    """Requests that are computed at once, at most."""
    max_wait_ms: float = 1.0
    """Milliseconds that a request waits for others to be computed with."""
    max_queue: int = 1024
    """Requests that may wait; a further one is answered with 503."""
    max_body_kib: int = 1024
    """Size of the largest body that is read, in KiB."""
    max_history: int = 2000
    """Events of the longest history that is taken; of it the model reads its last ``max_history``."""
    max_k: int = 1000
    """The most recommendations in one answer."""
    threads: int = 0
    """Threads of the model; 0: one for each processor but one, which the requests need."""
    watch_s: float = 10.0
    """Seconds between two looks for a newer export in the folder; 0: only SIGHUP and ``POST /reload`` look."""
    stop_s: int = 30
    """Seconds that requests under way get to end after SIGTERM."""

    def __post_init__(self) -> None:
        host_text = self.host if len(self.host) < 254 else f"{self.host[:50]}..."
        is_host = (
            bool(self.host)
            and len(self.host) < 254
            and self.host.isascii()
            and not set(self.host) & set(" /\n\r\t\0")
        )
        require(is_host, f"serve.host={host_text!r} is no address; set it to one such as 127.0.0.1")
        self.token_file = checked_path("serve.token_file", self.token_file)
        self.store = checked_path("serve.store", self.store)
        for name in ("token_file", "store", "events"):
            value = getattr(self, name)
            require(not is_url(value), f"serve.{name}={value} is a URL; name a local path")
        if self.events != NO_EVENTS:
            self.events = checked_folder("serve.events", self.events)
        check_bounds(
            "serve.",
            self,
            port=(0, 65_535),
            max_batch_size=(1, 4096),
            max_wait_ms=(0, 1000),
            max_queue=(1, 100_000),
            max_body_kib=(1, 1024 * 1024),
            max_history=(1, COUNT),
            max_k=(1, 100_000),
            threads=(0, 4096),
            watch_s=(0, 24 * 3600),
            stop_s=(1, 3600),
        )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches ``host``."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(kw_only=True, slots=True)
class ServerConfig:
    """What ``configs/serve.yaml`` composes."""

    config_dir: str = ""
    """Folder of your own YAML files, as for a run."""
    export: str = ""
    """Folder that ``shardrec export`` wrote."""
    serve: ServeConfig = field(default_factory=ServeConfig)
    """How the export is served."""

    def __post_init__(self) -> None:
        self.export = checked_path("export", self.export)
        require(
            not is_url(self.export),
            f"export={self.export} is a URL, and a server reads a folder of this machine: copy it here, such as by "
            f"`aws s3 sync {self.export} FOLDER`, and name export=FOLDER",
        )
