"""Any execution provider of ONNX Runtime: named on the command line, loaded, and asked what it took."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.runtime.devices import CPU_PROVIDER
from redtest_onnx.runtime.library import captured_stderr, failures, onnxruntime, quiet_stdout, reason

log = logging.getLogger(__name__)

_SUFFIX = "ExecutionProvider"
# What precedes an error in ONNX Runtime's log: level, place in its sources, the provider's own marks.
_LOGGED_ERROR = re.compile(r"\[E:onnxruntime[^\]]*\]|\[ERROR\](?: \[\w+\])?")
_OPENVINO_GROUPS = ("AUTO", "HETERO", "MULTI", "BATCH")
_ASSIGNMENT = "session.record_ep_graph_assignment_info"

Node = tuple[str, str]
"""Name and operator."""


@dataclass(frozen=True)
class Provider:
    """An execution provider that was asked for.

    Attributes:
        name: such as openvino, dml, coreml, qnn, xnnpack, tensorrt, migraphx, or ONNX Runtime's full name.
        options: names and values, as the provider's own documentation has them.
        library: file of a plug-in to register under this name; None for what the package holds.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    library: str | None = None

    @classmethod
    def parse(cls, text: str) -> Provider:
        """Read NAME[:key=value,...]; the key `library` names the file of a plug-in.

        Raises:
            InputError: it is written otherwise.
        """
        name, _, rest = text.partition(":")
        pairs = [part.partition("=") for part in rest.split(",") if part]
        if not name or any(not key or not equals for key, equals, _ in pairs):
            raise InputError(
                f"provider is {text!r}",
                hint="write NAME or NAME:key=value,... such as openvino:device_type=CPU",
            )
        options = {key: value for key, _, value in pairs}
        library = options.pop("library", None)
        return cls(name, tuple(options.items()), library)

    def __str__(self) -> str:
        return self.name


def require(providers: Sequence[Provider]) -> None:
    """Refuse providers that are not there, before any work.

    Raises:
        InputError: no such plug-in file.
        RuntimeUnavailableError: this ONNX Runtime has no such provider.
    """
    if providers:
        ort = onnxruntime()
        configure(ort, ort.SessionOptions(), providers)


def configure(ort: Any, settings: Any, providers: Sequence[Provider]) -> list[Any]:
    """The providers of a session that was asked to run on them, with the CPU for what they leave.

    Args:
        ort: the onnxruntime module.
        settings: of the session; plug-ins are added to it.
        providers: in order of preference.

    Returns:
        What `InferenceSession` takes as providers; empty where plug-ins are in the settings.

    Raises:
        RuntimeUnavailableError: a provider that this ONNX Runtime does not have.
    """
    settings.add_session_config_entry(_ASSIGNMENT, "1")
    plugins = [provider for provider in providers if provider.library or _is_plugin(ort, provider)]
    if plugins:
        if len(plugins) < len(providers):
            raise InputError("plug-in providers and built-in ones can't be mixed in one session")
        for provider in plugins:
            _add_plugin(ort, settings, provider)
        return []
    named = [(full_name(ort, provider), dict(provider.options)) for provider in providers]
    for name, options in named:
        if name == "OpenVINOExecutionProvider" and "device_type" in options:
            _check_openvino_device(ort, options["device_type"])
    if all(name != CPU_PROVIDER for name, _ in named):
        named.append((CPU_PROVIDER, {}))
    return named


def full_name(ort: Any, provider: Provider) -> str:
    """ONNX Runtime's name of a provider.

    Raises:
        RuntimeUnavailableError: it has none of that name.
    """
    available = list(ort.get_available_providers())
    wanted = provider.name.lower().removesuffix(_SUFFIX.lower())
    for name in available:
        if name.lower().removesuffix(_SUFFIX.lower()) == wanted:
            return str(name)
    there = ", ".join(map(_short, available))
    raise RuntimeUnavailableError(
        f"this ONNX Runtime has no provider {provider.name!r}; available: {there}",
        hint=f"install the package that holds it, such as onnxruntime-{wanted}, in place of onnxruntime, or "
        "register a plug-in with library=FILE",
    )


def open_session(
    ort: Any, source: str | bytes, settings: Any, providers: Sequence[Provider], label: str
) -> Any:
    """A session on the providers that were asked for.

    Raises:
        InputError: an option that a provider does not know, or a model that it refuses.
        RuntimeUnavailableError: a provider that is missing or can't be loaded.
    """
    configured = configure(ort, settings, providers)
    try:
        with quiet_stdout(), captured_stderr() as said:
            session = ort.InferenceSession(source, settings, providers=configured or None, enable_fallback=0)
    except failures(ort) as error:
        asked = ", ".join(map(str, providers))
        raise InputError(
            f"the provider {asked} refuses: {reason(error)}",
            where=label,
            hint="check its options NAME:key=value,... against its documentation",
        ) from error
    if configured and (lost := [name for name, _ in configured if name not in session.get_providers()]):
        names, there = (", ".join(map(_short, found)) for found in (lost, session.get_providers()))
        raise RuntimeUnavailableError(
            f"ONNX Runtime could not load {names}{_why(said)}; available: {there}",
            where=label,
            hint="check that its driver and libraries are installed",
        )
    for line in said:
        log.info("ONNX Runtime: %s", line)
    return session


def _short(name: str) -> str:
    """A provider as users may write it."""
    return name.removesuffix(_SUFFIX).lower()


def _why(log_lines: Sequence[str]) -> str:
    """The first error of ONNX Runtime's log, without the places in its sources."""
    error = next((line for line in log_lines if _LOGGED_ERROR.search(line)), None)
    return "" if error is None else f" ({_LOGGED_ERROR.split(error)[-1].strip()[:300]})"


def _check_openvino_device(ort: Any, asked: str) -> None:
    """Refuse a device that OpenVINO has none of: it would take a name it does not know for the CPU's.

    Raises:
        RuntimeUnavailableError: there is no such device.
    """
    devices = getattr(ort.capi._pybind_state, "get_available_openvino_device_ids", None)
    kind = re.split(r"[._:]", asked)[0]
    if devices is None or kind in _OPENVINO_GROUPS:
        return
    there = [str(device) for device in devices()]
    if kind not in {device.split(".")[0] for device in there}:
        raise RuntimeUnavailableError(
            f"OpenVINO has no device {asked!r}; available: {', '.join(there)}",
            hint="check that the device's driver is installed",
        )


def assigned_nodes(session: Any) -> Mapping[str, tuple[Node, ...]]:
    """The nodes that each provider of a session took, after ONNX Runtime's optimisations.

    Raises:
        RuntimeUnavailableError: this ONNX Runtime does not tell (before 1.24).
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise RuntimeUnavailableError(
            "this ONNX Runtime does not tell which provider took a node", hint="update to 1.24 or newer"
        )
    found: dict[str, list[Node]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes = [(str(node.name), str(node.op_type)) for node in part.get_nodes()]
        found.setdefault(str(part.ep_name), []).extend(nodes)
    return {name: tuple(nodes) for name, nodes in found.items()}


def _is_plugin(ort: Any, provider: Provider) -> bool:
    """Whether a plug-in was registered under this name, by this process or by the package itself."""
    return provider.name in _registered(ort)


def _registered(ort: Any) -> set[str]:
    devices = ort.get_ep_devices() if hasattr(ort, "get_ep_devices") else []
    built_in = set(ort.get_available_providers())
    return {str(device.ep_name) for device in devices} - built_in


def _add_plugin(ort: Any, settings: Any, provider: Provider) -> None:
    if not hasattr(ort, "register_execution_provider_library"):
        raise RuntimeUnavailableError("this ONNX Runtime takes no plug-ins", hint="update to 1.23 or newer")
    if provider.library and provider.name not in _registered(ort):
        path = Path(provider.library)
        if not path.is_file():
            raise InputError("no such file", where=str(path), hint="library=FILE names a plug-in")
        try:
            ort.register_execution_provider_library(provider.name, str(path.resolve()))
        except failures(ort) as error:
            raise InputError(f"is no plug-in that can be loaded: {reason(error)}", where=str(path)) from error
    devices = [device for device in ort.get_ep_devices() if device.ep_name == provider.name]
    if not devices:
        names = ", ".join(sorted(_registered(ort))) or "none"
        raise RuntimeUnavailableError(
            f"the plug-in {provider.name} offers no device; plug-ins with devices: {names}",
            hint="the name is the plug-in's own",
        )
    settings.add_provider_for_devices(devices[:1], dict(provider.options))
