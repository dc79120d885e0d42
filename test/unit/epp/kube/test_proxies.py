"""Which proxy leads to a server."""

import pytest

from epp.kube.proxies import proxy_for

PROXY = {"HTTPS_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("server", "env", "want"),
    [
        pytest.param("https://api:6443", {}, "", id="no-variable"),
        pytest.param("https://api:6443", PROXY, "http://proxy:3128", id="https-variable"),
        pytest.param("https://api", {"https_proxy": "http://p:1"}, "http://p:1", id="lower-case"),
        pytest.param(
            "https://api",
            {**PROXY, "https_proxy": "http://no:1"},
            "http://proxy:3128",
            id="upper-case-wins",
        ),
        pytest.param(
            "https://api", {"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128", id="no-scheme"
        ),
        pytest.param("http://api", PROXY, "", id="plain-server-has-another-variable"),
        pytest.param("http://api", {"HTTP_PROXY": "http://p:1"}, "http://p:1", id="plain-server"),
        pytest.param("https://localhost:6443", PROXY, "", id="localhost-is-direct"),
        pytest.param("https://127.0.0.1:6443", PROXY, "", id="loopback-is-direct"),
        pytest.param("https://[::1]:6443", PROXY, "", id="ipv6-loopback-is-direct"),
    ],
)
def test_the_variable_of_the_scheme_counts(server: str, env: dict[str, str], want: str) -> None:
    assert proxy_for(server, env)[0] == want


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        pytest.param("https://api.example.com", "example.com", True, id="domain-covers-subdomain"),
        pytest.param("https://example.com", "example.com", True, id="domain-covers-itself"),
        pytest.param("https://badexample.com", "example.com", False, id="not-a-suffix-of-a-word"),
        pytest.param("https://example.com", ".example.com", False, id="dot-needs-subdomain"),
        pytest.param("https://api.example.com", ".example.com", True, id="dot-covers-subdomain"),
        pytest.param("https://api.example.com", "*.example.com", True, id="star-is-a-dot"),
        pytest.param("https://API.example.com", "api.EXAMPLE.com", True, id="case-does-not-count"),
        pytest.param("https://api:6443", "api:6443", True, id="port-fits"),
        pytest.param("https://api:6443", "api:443", False, id="other-port"),
        pytest.param("https://api", "api:443", True, id="default-port-fits"),
        pytest.param("https://10.96.0.1", "10.96.0.0/12", True, id="network"),
        pytest.param("https://10.1.0.1", "10.96.0.0/12", False, id="outside-network"),
        pytest.param("https://10.1.0.1", "10.1.0.1", True, id="address"),
        pytest.param("https://[fd00::1]:443", "[fd00::1]:443", True, id="ipv6-with-port"),
        pytest.param("https://[fd00::1]:443", "fd00::1", True, id="ipv6"),
        pytest.param("https://api", "other, api", True, id="list-with-space"),
        pytest.param("https://api", "*", True, id="everything"),
        pytest.param("https://api", "not/a/network", False, id="nonsense"),
        pytest.param("https://api", "", False, id="empty"),
    ],
)
def test_no_proxy_exempts_hosts_and_networks(server: str, no_proxy: str, direct: bool) -> None:
    proxy, variable = proxy_for(server, {**PROXY, "NO_PROXY": no_proxy})

    assert (proxy, variable) == (("", "") if direct else ("http://proxy:3128", "HTTPS_PROXY"))
