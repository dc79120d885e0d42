"""Find out how to reach the API server: kubeconfig, or what a pod is given.

In this order: the file of ``--kubeconfig``; the files of ``$KUBECONFIG``; the service account of
the pod we run in, unless a context was asked for; ``~/.kube/config``. Reading is all that happens
here: no network, no plugin. Whatever is wrong is a ConfigError that names file and field.
Reference: client-go tools/clientcmd (order of sources), rest.InClusterConfig.
"""

import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from epp.errors import ConfigError
from epp.kube.client_certificate import ClientCertificate
from epp.kube.connection_settings import (
    DEFAULT_NAMESPACE,
    Anonymous,
    AuthProvider,
    ConnectionSettings,
    ExecPlugin,
    Identity,
    StaticAuthorization,
    TokenFile,
)
from epp.kube.exec_plugin import API_VERSIONS
from epp.kube.kubeconfig import (
    Chosen,
    Cluster,
    Exec,
    Place,
    Provider,
    User,
    choose_context,
    decode_base64,
    read_file,
)
from epp.kube.proxies import PROXY_SCHEMES, proxy_for
from epp.logs import get_logger

__all__ = ["SERVICE_ACCOUNT", "ConnectionSettings", "load_settings"]

log = get_logger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts token, CA and namespace of a pod's service account."""

_OIDC_TO_REFRESH = ("refresh-token", "client-id", "client-secret", "idp-issuer-url")


def load_settings(
    kubeconfig: Path | None,
    context: str,
    env: Mapping[str, str],
    *,
    service_account: Path = SERVICE_ACCOUNT,
) -> ConnectionSettings:
    """Decide which API server to use and how.

    Args:
        kubeconfig: File that was asked for by name, or None.
        context: Context that was asked for by name; empty is the current one.
        env: Environment: KUBECONFIG, KUBERNETES_SERVICE_HOST and _PORT, HOME, proxies; also what
            credential plugins inherit.
        service_account: Directory with a pod's token, CA and namespace.

    Raises:
        ConfigError: There is nothing to connect to, or it cannot be understood.
    """
    files = _asked_for(kubeconfig, env)
    if not files and not context and _is_in_cluster(env, service_account):
        return _in_cluster(env, service_account)
    home = Path(env["HOME"], ".kube", "config") if env.get("HOME") else None
    if not files and home is not None and home.is_file():
        files = [home]
    if not files:
        raise ConfigError(
            "no API server is known: neither --kubeconfig nor $KUBECONFIG is set, this is not a "
            "pod with a service account token, and there is no ~/.kube/config"
        )
    return _from_context(choose_context(files, context), env)


def _asked_for(kubeconfig: Path | None, env: Mapping[str, str]) -> Sequence[Path]:
    if kubeconfig is not None:
        if not kubeconfig.is_file():
            problem = _no_file(kubeconfig)
            raise ConfigError(problem, source="--kubeconfig", value=str(kubeconfig))
        return [kubeconfig]
    listed = env.get("KUBECONFIG", "")
    named = [Path(name).expanduser() for name in listed.split(os.pathsep) if name]
    files = [file for file in named if file.is_file()]
    if named and not files:
        problem = _no_file(named[0]) if len(named) == 1 else "none of these is a file"
        raise ConfigError(problem, source="$KUBECONFIG", value=listed)
    return files


def _no_file(path: Path) -> str:
    if path.is_dir():
        return "is a directory, not a file"
    return "is not a regular file" if path.exists() else "no such file"


def _is_in_cluster(env: Mapping[str, str], service_account: Path) -> bool:
    return bool(env.get("KUBERNETES_SERVICE_HOST")) and (service_account / "token").is_file()


def _in_cluster(env: Mapping[str, str], service_account: Path) -> ConnectionSettings:
    host = env["KUBERNETES_SERVICE_HOST"]
    port = env.get("KUBERNETES_SERVICE_PORT") or "443"
    if not port.isdigit():
        raise ConfigError("is not a port number", source="$KUBERNETES_SERVICE_PORT", value=port)
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    place = Place(service_account / "ca.crt", "")
    if place.file.is_file():
        ca_data = _trusted(place, "", read_file(place, "", "ca.crt"))
    else:
        ca_data = ""
        log.warning("no CA file in the pod, the system's are used", file=str(place.file))
    namespace_file = service_account / "namespace"
    namespace = namespace_file.read_text().strip() if namespace_file.is_file() else ""
    return ConnectionSettings(
        server=server,
        origin=f"service account in {service_account}",
        namespace=namespace or DEFAULT_NAMESPACE,
        ca_data=ca_data,
        proxy=_proxy_of_env(server, env),
        identity=TokenFile(path=service_account / "token"),
    )


def _from_context(chosen: Chosen, env: Mapping[str, str]) -> ConnectionSettings:
    cluster, place = chosen.cluster, chosen.cluster_place
    server = _server(cluster, place)
    ca_data = _ca_data(cluster, place)
    return ConnectionSettings(
        server=server,
        origin=f"context {chosen.name} of {place.file}",
        namespace=chosen.namespace or DEFAULT_NAMESPACE,
        ca_data=ca_data,
        insecure_skip_tls_verify=bool(cluster.insecure_skip_tls_verify),
        tls_server_name=cluster.tls_server_name or "",
        proxy=_proxy(cluster, place) or _proxy_of_env(server, env),
        client_certificate=_client_certificate(chosen.user, chosen.user_place),
        identity=_identity(chosen, server, ca_data, env),
    )


def _server(cluster: Cluster, place: Place) -> str:
    server = (cluster.server or "").rstrip("/")
    try:
        url = urlsplit(server)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        raise place.error("server", "is not a URL") from None
    if url.username or url.password:
        raise place.error("server", "must not contain a user or a password")
    if not usable:
        raise place.error("server", "must be an http or https URL", server)
    return server


def _ca_data(cluster: Cluster, place: Place) -> str:
    if cluster.certificate_authority_data:
        field = "certificate-authority-data"
        return _trusted(
            place, field, decode_base64(place, field, cluster.certificate_authority_data)
        )
    if cluster.certificate_authority:
        field = "certificate-authority"
        return _trusted(place, field, read_file(place, field, cluster.certificate_authority))
    return ""


def _trusted(place: Place, field: str, pem: bytes) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        text = pem.decode("ascii")
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as exc:
        raise place.error(field, "holds no PEM certificate") from exc
    return text


def _client_certificate(user: User, place: Place) -> ClientCertificate | None:
    certificate = _pem(
        place, "client-certificate", user.client_certificate_data, user.client_certificate
    )
    key = _pem(place, "client-key", user.client_key_data, user.client_key)
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "client-certificate" if certificate is None else "client-key"
        raise place.error(missing, "is missing: certificate and key go together")
    pair = ClientCertificate(certificate=certificate, key=key)
    try:
        pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except ssl.SSLError as exc:
        reason = exc.reason or "not PEM"
        raise place.error(
            "client-certificate", f"certificate and key are not usable: {reason}"
        ) from exc
    return pair


def _pem(place: Place, field: str, data: str | None, path: str | None) -> bytes | None:
    if data:
        return decode_base64(place, f"{field}-data", data)
    return read_file(place, field, path) if path else None


def _proxy(cluster: Cluster, place: Place) -> str:
    proxy = cluster.proxy_url or ""
    problem = _proxy_problem(proxy)
    if problem:
        raise place.error("proxy-url", problem)
    return proxy


def _proxy_of_env(server: str, env: Mapping[str, str]) -> str:
    proxy, variable = proxy_for(server, env)
    problem = _proxy_problem(proxy)
    if problem:
        raise ConfigError(problem, source=f"${variable}")
    return proxy


def _proxy_problem(proxy: str) -> str:
    """What is wrong, without the value: it may hold a password."""
    if not proxy:
        return ""
    try:
        url = urlsplit(proxy)
        usable = bool(url.hostname) and url.port != 0
    except ValueError:
        return "is not a URL"
    if url.scheme not in PROXY_SCHEMES:
        return (
            f"proxies of scheme {url.scheme[:20] or 'none'} are not supported, only http and https"
        )
    return "" if usable else "is not a URL"


def _identity(chosen: Chosen, server: str, ca_data: str, env: Mapping[str, str]) -> Identity:
    """What kubectl would use, in its order: plugin and provider exclude tokens; file before token."""
    user, place = chosen.user, chosen.user_place
    if user.impersonate:
        raise place.error("as", "impersonation is not supported")
    if user.exec is not None:
        return _exec_plugin(user.exec, chosen, server, ca_data, env)
    if user.token_file:
        read_file(place, "tokenFile", user.token_file)
        return TokenFile(path=place.resolve(user.token_file))
    if user.token:
        if not user.token.isascii() or not user.token.isprintable():
            raise place.error("token", "is not a token")
        return StaticAuthorization(header=f"Bearer {user.token}")
    if user.auth_provider is not None:
        return _auth_provider(user.auth_provider, place)
    if user.username:
        return StaticAuthorization(header=_basic(user.username, user.password or ""))
    return Anonymous()


def _auth_provider(provider: Provider, place: Place) -> AuthProvider:
    """OpenID Connect; the others are gone from kubectl, too, in favour of plugins."""
    if provider.name != "oidc":
        text = "is not supported, only oidc; use a credential plugin (exec)"
        raise place.error("auth-provider.name", text, provider.name)
    config = provider.config or {}
    token = config.get("id-token", "")
    if token and token.count(".") != 2:
        raise place.error("auth-provider.config", "its id-token is not a JSON Web Token")
    missing = [name for name in _OIDC_TO_REFRESH if not config.get(name)]
    if not token and missing:
        text = f"has no id-token, and {missing[0]} is missing to ask for one"
        raise place.error("auth-provider.config", text)
    return AuthProvider(name=provider.name, config=config)


def _basic(username: str, password: str) -> str:
    import base64

    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def _exec_plugin(
    plugin: Exec, chosen: Chosen, server: str, ca_data: str, env: Mapping[str, str]
) -> ExecPlugin:
    place = chosen.user_place
    if plugin.api_version not in API_VERSIONS:
        raise place.error(
            "exec.apiVersion",
            f"must be one of {', '.join(sorted(API_VERSIONS))}",
            plugin.api_version,
        )
    if not plugin.command:
        raise place.error("exec.command", "is missing")
    # As for a shell: a name is searched for, a relative path starts where it is written.
    has_path = os.sep in plugin.command
    return ExecPlugin(
        command=str(place.resolve(plugin.command)) if has_path else plugin.command,
        args=tuple(plugin.args or ()),
        env={**env, **{variable.name: variable.value for variable in plugin.env or ()}},
        api_version=plugin.api_version,
        cluster=_cluster_info(chosen.cluster, server, ca_data)
        if plugin.provide_cluster_info
        else None,
        install_hint=plugin.install_hint or "",
    )


def _cluster_info(cluster: Cluster, server: str, ca_data: str) -> Mapping[str, object]:
    import base64

    info: dict[str, object] = {"server": server}
    if ca_data:
        info["certificate-authority-data"] = base64.b64encode(ca_data.encode()).decode()
    if cluster.insecure_skip_tls_verify:
        info["insecure-skip-tls-verify"] = True
    if cluster.tls_server_name:
        info["tls-server-name"] = cluster.tls_server_name
    if cluster.proxy_url:
        info["proxy-url"] = cluster.proxy_url
    return info
