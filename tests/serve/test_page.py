"""The page's files, and the policy that they are sent with."""

import httpx

from eve_jax.serve.page import Page


def test_the_files_of_the_page(client: httpx.Client) -> None:
    files = Page().files
    assert "/" in files and all(path.count("/") == 1 for path in files)
    for path in files:
        given = client.get(path)
        assert given.status_code == 200 and given.headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in given.headers["content-security-policy"]
        assert given.headers["x-content-type-options"] == "nosniff"
        again = client.get(path, headers={"If-None-Match": given.headers["etag"]})
        assert again.status_code == 304 and not again.content
    assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/..%2fapp.py", "/page/index.html", "/__init__.py", "/%2e%2e/fields.py"):
        assert client.get(path).status_code == 404
