"""Digests stand beside tags, and only there."""

from monitoring.deploy import digests

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_a_tag_gets_its_digest_and_an_old_one_is_replaced() -> None:
    """A variable and a remark stay as they are."""
    text = f"""services:
  model:
    image: ${{MODEL_IMAGE:-m}}:${{VERSION:?say}}
  prometheus:
    image: prom/prometheus:v3.1.0
  grafana:
    image: grafana/grafana:12.4.1@{B} # remark
"""
    asked: list[str] = []

    def resolve(tag: str) -> str:
        asked.append(tag)
        return A

    written = digests.with_digests(text, resolve)
    assert asked == ["prom/prometheus:v3.1.0", "grafana/grafana:12.4.1"]
    assert f"image: prom/prometheus:v3.1.0@{A}\n" in written
    assert f"image: grafana/grafana:12.4.1@{A} # remark\n" in written
    assert "image: ${MODEL_IMAGE:-m}:${VERSION:?say}\n" in written
    assert digests.with_digests(written, resolve) == written
