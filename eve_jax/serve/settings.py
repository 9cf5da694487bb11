"""Settings of the server: who may ask, what a request may hold, how long things may take."""

import ipaddress
import re
from dataclasses import dataclass, fields, replace

from eve_jax.errors import Argument, UserError
from eve_jax.process.checks import number, unexpected, whole

MIB = 2**20
ROOT = re.compile(r"(/[\w.~-]+)*", re.ASCII)
HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")  # a name or an address, as URLs have it
ORIGIN = re.compile(r"\*|https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d+)?")  # as browsers send it


@dataclass(frozen=True)
class ServeSettings:
    """What the server allows.

    names: of the model; the first one is in answers. api_keys: () = anybody may ask. media_domains: hosts whose images
    are fetched, () = none. origins: sites whose pages may read answers (CORS), () = none. root_path: what a proxy has
    before the paths of this server, such as /eve, whether it takes that away or not. hosts: names by which requests
    may call this server (Host header), without port, () = any. max_tokens, temperature: of a
    request that gives none. max_images, max_pixels: of a request, of one image file. max_body, max_held, max_fetched:
    bytes of one request's body, of all bodies that are held at a time, of one fetched image. image_cache: bytes of
    images that are kept as patches. decoders: threads that
    decode images and write prompts. Times are in seconds: until a request's headers are there, until its body is,
    until a client has taken a part of an answer, of a fetch.
    """

    names: tuple[str, ...] = ("eve",)
    api_keys: tuple[str, ...] = ()
    media_domains: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    root_path: str = ""
    hosts: tuple[str, ...] = ()
    max_tokens: int = 1024
    temperature: float = 1.0
    max_images: int = 32
    max_pixels: int = 64_000_000
    max_body: int = 64 * MIB
    max_held: int = 512 * MIB
    max_fetched: int = 32 * MIB
    image_cache: int = 256 * MIB
    decoders: int = 4
    header_time: float = 10.0
    body_time: float = 60.0
    send_time: float = 60.0
    fetch_time: float = 10.0
    quiet: bool = False

    def __post_init__(self) -> None:
        if not ROOT.fullmatch(self.root_path):
            raise unexpected(Argument("root_path"), self.root_path, "a path such as /eve, without a slash at its end")
        number(Argument("temperature"), self.temperature, "0 to 2", 0, 2)
        for name in self.names:
            if not name or self.names.count(name) > 1:
                raise unexpected(Argument("served_model_name"), name, "names that are not empty, each of them once")
        if not all(key.split() == [key] for key in self.api_keys):  # which is not shown
            raise UserError("a key of --api_key or EVE_API_KEYS is empty or has white space: is a variable not set?")
        for host in self.media_domains:
            if not HOST.fullmatch(host):
                raise unexpected(Argument("media_domains"), host, "hosts such as a.org, without scheme, port and path")
        for host in self.hosts:
            if not HOST.fullmatch(host):
                raise unexpected(Argument("allowed_hosts"), host, "hosts such as a.org, without scheme, port and path")
        for site in self.origins:
            if not ORIGIN.fullmatch(site):
                raise unexpected(Argument("cors_origins"), site, "sites such as https://a.org, without a path, or *")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                whole(field.name, value, "a whole number of at least 1", 1)
            elif field.type is float:
                number(field.name, value, "a number of at least 0", 0)


def named(settings: ServeSettings, address: str, given: str) -> ServeSettings:
    """Return `settings` with the names of a server at the loopback `address`, which --host calls `given`, as `hosts`,
    unless it needs a key and is told none; as they are for another address, whose names are not known."""
    if not ipaddress.ip_address(address).is_loopback or (settings.api_keys and not settings.hosts):
        return settings
    own = ("localhost", "127.0.0.1", "::1", address, given.lower())
    return replace(settings, hosts=tuple(dict.fromkeys((*settings.hosts, *own))))


def keys_of(listed: str) -> list[str]:
    """Return the keys of a comma-separated list; a list of commas and white space alone has an empty one."""
    keys = [key for part in listed.split(",") if (key := part.strip())]
    return keys or ([""] if listed else [])
