import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live import errors
from xbyte_live.web.common.responses import fault_of, fault_reply, uploaded_headers

PICTURES = ["image/png", "video/mp4", "audio/mpeg", 'audio/ogg; codecs="opus"', "VIDEO/MP4"]
DOWNLOADS = [
    "text/html",
    "text/html; charset=utf-8",
    "application/xhtml+xml",
    "image/svg+xml",
    "IMAGE/SVG+XML",
    "image/svg+xml; charset=utf-8",
    "application/javascript",
    "application/pdf",
]
NO_TYPES = ["", "html", "text/", "/html", "a b/c", "text/html\r\nX: y", "text/html;", "tëxt/html"]


@pytest.mark.parametrize("content_type", PICTURES)
def test_pictures_and_sound_are_shown_in_place(content_type: str) -> None:
    headers = uploaded_headers(content_type, "name")
    assert headers == {"content-type": content_type, "content-security-policy": "sandbox"}


@pytest.mark.parametrize("content_type", DOWNLOADS)
def test_all_else_is_a_download(content_type: str) -> None:
    headers = uploaded_headers(content_type, "page.html")
    assert headers["content-type"] == content_type
    assert headers["content-security-policy"] == "sandbox"
    assert headers["content-disposition"] == (
        "attachment; filename=\"page.html\"; filename*=UTF-8''page.html"
    )


@pytest.mark.parametrize("content_type", NO_TYPES)
def test_what_is_no_content_type_is_bytes(content_type: str) -> None:
    headers = uploaded_headers(content_type, "x")
    assert headers["content-type"] == "application/octet-stream"
    assert "content-disposition" in headers


@given(st.text(), st.text())
def test_no_name_or_type_breaks_out_of_its_header(content_type: str, name: str) -> None:
    headers = uploaded_headers(content_type, name)
    for value in headers.values():
        assert re.fullmatch(r"[ -~]*", value), value
    disposition = headers.get("content-disposition", "")
    assert disposition.count('"') in (0, 2)


def test_a_name_in_any_script_survives() -> None:
    headers = uploaded_headers("application/pdf", "Übung 5.pdf")
    assert headers["content-disposition"] == (
        "attachment; filename=\"_bung 5.pdf\"; filename*=UTF-8''%C3%9Cbung%205.pdf"
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ItemNotFound("x"), 404),
        (errors.ItemGone("x"), 410),
        (errors.RangeNotSatisfiable(5), 416),
        (errors.PaymentMalformed("x"), 400),
        (errors.PaymentRefused("invalid_payload"), 402),
        (errors.PaymentPending(3), 503),
        (errors.FacilitatorUnavailable("x"), 503),
        (errors.FacilitatorMisbehaved("x"), 502),
        (errors.ChainUnavailable("x"), 503),
        (errors.DatabaseUnavailable("x"), 503),
        (errors.DatabaseOverloaded("x"), 503),
        (errors.StoreError("x"), 503),
        (errors.ConfigError("x"), 500),
        (ValueError("x"), 500),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int) -> None:
    assert fault_of(error).status == status
    answer = fault_reply(error)
    assert answer.status_code == status
    assert set(json.loads(bytes(answer.body))) == {"error", "message"}
    assert answer.headers["cache-control"] == "no-store"


def test_our_own_faults_do_not_show_their_text() -> None:
    for error in (
        errors.DatabaseUnavailable("sqlite:////srv/x.db"),
        errors.StoreError("/srv/x"),
        errors.ConfigError("/srv/x"),
        OSError("/srv/x"),
    ):
        assert b"/srv" not in bytes(fault_reply(error).body)
