"""LibreTranslate's interface: bodies, fields, errors, headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.serving import serving, word_app, words

LOVE = {"q": "我爱", "source": "zh", "target": "en"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(word_app(char_limit=100, batch_limit=3)) as url, httpx.Client(base_url=url) as c:
        yield c


def post(client: httpx.Client, **changes: Any) -> tuple[int, Any]:
    """Post JSON to /translate; a parameter that is ``...`` is left out."""
    parameters = {name: value for name, value in (LOVE | changes).items() if value is not ...}
    response = client.post("/translate", json=parameters)
    return response.status_code, response.json()


@pytest.mark.parametrize(
    "body",
    [
        {"json": LOVE},
        {"data": LOVE},
        {"files": {name: (None, value) for name, value in LOVE.items()}},
        {"params": LOVE},
        {
            "content": "q=我爱&source=zh&target=en".encode(),  # curl -d
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        },
        {"params": {"q": "不", "target": "en"}, "data": {"q": "我爱", "source": "zh"}},
    ],
)
def test_json_forms_multipart_and_query_are_accepted(
    client: httpx.Client, body: dict[str, Any]
) -> None:
    response = client.post("/translate", **body)
    assert (response.status_code, response.json()) == (200, {"translatedText": "w6211 w7231"})


def test_a_list_has_a_list(client: httpx.Client) -> None:
    assert post(client, q=["我", "爱"]) == (200, {"translatedText": ["w6211", "w7231"]})
    assert post(client, q=["我"]) == (200, {"translatedText": ["w6211"]})


def test_lines_are_translated_one_by_one_and_blank_lines_stay(client: httpx.Client) -> None:
    expected = (200, {"translatedText": "w6211\n\nw7231\n"})
    assert post(client, q="我\n\n爱\n") == expected
    assert post(client, q="我\r\n\r\n爱\r") == expected
    form = client.post("/translate", data=LOVE | {"q": "我\r\n\r\n爱\r\n"})
    assert form.json() == expected[1]


def test_optional_fields_are_absent_unless_requested(client: httpx.Client) -> None:
    assert set(post(client)[1]) == {"translatedText"}
    assert set(post(client, alternatives=0, format="", api_key=None)[1]) == {"translatedText"}
    assert set(post(client, source="auto")[1]) == {"translatedText", "detectedLanguage"}
    assert set(post(client, alternatives=2)[1]) == {"translatedText", "alternatives"}
    assert set(post(client, nmt=False)[1]) == {"translatedText"}


def test_alternatives_are_unique_and_without_the_best(client: httpx.Client) -> None:
    assert post(client, q="我", alternatives=3)[1]["alternatives"] == ["w6211 again", "w6211 0"]
    assert post(client, q=["我", "爱"], alternatives="1")[1]["alternatives"] == [
        ["w6211 again"],
        ["w7231 again"],
    ]
    assert post(client, q="我\n爱", alternatives=1)[1]["alternatives"] == [
        "w6211 again\nw7231 again"
    ]
    assert post(client, alternatives=2, format="html")[1]["alternatives"] == []


def test_auto_detects_each_text(client: httpx.Client) -> None:
    answer = post(client, q=["我爱中国", "I love", "這本書很有意思"], source="auto")[1]
    assert answer["detectedLanguage"] == [
        {"confidence": 100.0, "language": "zh-Hans"},
        {"confidence": 100.0, "language": "en"},
        {"confidence": 100.0, "language": "zh-Hant"},
    ]
    assert answer["translatedText"][1] == "I love"
    assert post(client, source="auto")[1]["detectedLanguage"]["language"] == "zh-Hans"


@pytest.mark.parametrize("source", ["zh", "ZH", "zt", "zh-Hans", "zh_hans", "zh-CN", "zh-tw"])
def test_codes_of_chinese(client: httpx.Client, source: str) -> None:
    assert post(client, source=source)[1] == {"translatedText": "w6211 w7231"}


@pytest.mark.parametrize(
    ("text", "source", "target"),
    [
        ("I love", "en", "en"),
        ("我爱", "zh", "zh"),
        ("我爱", "zh-CN", "zh-Hans"),
        ("😀 👍🏽", "zh", "en"),
    ],
)
def test_texts_without_a_translation_are_returned(
    client: httpx.Client, text: str, source: str, target: str
) -> None:
    assert post(client, q=text, source=source, target=target)[1] == {"translatedText": text}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": ...}, "Invalid request: missing q parameter"),
        ({"q": ""}, "Invalid request: missing q parameter"),
        ({"q": []}, "Invalid request: missing q parameter"),
        ({"q": None, "source": ...}, "Invalid request: missing q parameter"),
        ({"source": ...}, "Invalid request: missing source parameter"),
        ({"target": ...}, "Invalid request: missing target parameter"),
        ({"q": 5}, "Invalid request: q parameter is not a text or a list of texts"),
        ({"q": ["我", 5]}, "Invalid request: q parameter is not a text or a list of texts"),
        ({"q": {"a": "b"}}, "Invalid request: q parameter is not a text or a list of texts"),
        ({"source": ["zh"]}, "Invalid request: source parameter is not a text"),
        ({"target": 7}, "Invalid request: target parameter is not a text"),
        ({"alternatives": "x"}, "Invalid request: alternatives parameter is not a number"),
        ({"alternatives": [1]}, "Invalid request: alternatives parameter is not a number"),
        ({"alternatives": True}, "Invalid request: alternatives parameter is not a number"),
        ({"alternatives": 101}, "Invalid request: alternatives parameter must be <= 100"),
        ({"alternatives": -1}, "Invalid request: alternatives parameter must be >= 0"),
        ({"q": "我" * 101}, "Invalid request: request (101) exceeds text limit (100)"),
        ({"q": ["我" * 99, "爱爱"]}, "Invalid request: request (101) exceeds text limit (100)"),
        ({"q": ["我"] * 4}, "Invalid request: request (4) exceeds text limit (3)"),
        ({"source": "zz"}, "zz is not supported"),
        ({"target": "zz"}, "zz is not supported"),
        ({"format": "xml"}, "xml format is not supported"),
        ({"format": 7}, "7 format is not supported"),
        (
            {"source": "en", "target": "zh"},
            "Chinese (zh) is not available as a target language from English (en)",
        ),
    ],
)
def test_errors_have_the_texts_of_libretranslate(
    client: httpx.Client, changes: dict[str, Any], message: str
) -> None:
    assert post(client, **changes) == (400, {"error": message})


@pytest.mark.parametrize("body", ["", "{", "[]", '"x"', "null", "[" * 100_000, "\xff", "1" * 9999])
def test_a_body_that_is_not_a_json_object_is_refused(client: httpx.Client, body: str) -> None:
    response = client.post(
        "/translate",
        content=body.encode("latin-1"),
        headers={"Content-Type": "application/json"},
    )
    assert (response.status_code, response.json()) == (400, {"error": "Invalid JSON format"})


def test_detect(client: httpx.Client) -> None:
    def detect(q: object) -> object:
        return client.post("/detect", json={"q": q}).json()

    assert detect("我用 iPhone 听音乐") == [{"confidence": 83.3, "language": "zh-Hans"}]
    assert detect("plain English") == [{"confidence": 100.0, "language": "en"}]
    assert detect("...") == [{"confidence": 0.0, "language": "en"}]
    assert detect("Привет") == [{"confidence": 0.0, "language": "en"}]
    assert detect(["我", "爱"]) == [{"confidence": 100.0, "language": "zh-Hans"}]
    assert detect(None) == {"error": "Invalid request: missing q parameter"}


def test_languages_have_targets(client: httpx.Client) -> None:
    # libretranslatepy sends a body with GET.
    response = client.request("GET", "/languages", data={"api_key": "x"})
    codes = {language["code"]: language["targets"] for language in response.json()}
    assert codes == {
        "en": ["en"],
        "zh": ["en", "zh"],
        "zh-Hans": ["en", "zh-Hans"],
        "zh-Hant": ["en", "zh-Hant"],
    }


def test_settings_health_and_specification(client: httpx.Client) -> None:
    settings = client.get("/frontend/settings").json()
    assert settings["charLimit"] == 100
    assert settings["language"]["target"] == {"code": "en", "name": "English"}
    assert not settings["keyRequired"]
    assert client.get("/health").json() == {"status": "ok"}
    spec = client.get("/spec").json()
    assert spec["swagger"] == "2.0"
    for path, methods in spec["paths"].items():
        for method in methods:
            assert client.request(method, path).status_code not in (404, 405), path


def test_disabled_functions_are_refused(client: httpx.Client) -> None:
    for path, message in [
        ("/translate_file", "Files translation are disabled on this server."),
        ("/suggest", "Suggestions are disabled on this server."),
    ]:
        response = client.post(path)
        assert (response.status_code, response.json()) == (403, {"error": message})


def test_every_response_has_cors_headers(client: httpx.Client) -> None:
    for method, path, status in [
        ("POST", "/translate", 400), ("GET", "/translate", 405), ("GET", "/nothing", 404),
        ("OPTIONS", "/translate", 200), ("GET", "/languages", 200), ("DELETE", "/", 405),
        ("GET", "/", 200),
    ]:  # fmt: skip
        response = client.request(method, path)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["access-control-allow-methods"] == "GET, POST"
        if status >= 400:
            assert response.json()["error"]


def test_an_api_key_is_required_if_there_are_keys() -> None:
    app = word_app(api_keys=("first", "密"))
    with serving(app) as url, httpx.Client(base_url=url) as client:
        for key in (..., None, "", "wrong", 7, ["first"]):
            assert post(client, api_key=key) == (403, {"error": "Invalid API key"})
        assert client.post("/detect", data={"q": "我"}).status_code == 403
        for key in ("first", "密"):
            assert post(client, api_key=key)[0] == 200
        header = {"Authorization": "Bearer first"}
        assert client.post("/translate", data=LOVE, headers=header).status_code == 200
        assert client.get("/languages").status_code == 200
        assert client.get("/frontend/settings").json()["keyRequired"]


def test_the_rate_limit_counts_requests_of_a_minute() -> None:
    with serving(word_app(rate_limit=3)) as url, httpx.Client(base_url=url) as client:
        assert [post(client)[0] for _ in range(5)] == [200, 200, 200, 429, 429]
        response = client.post("/translate", json=LOVE)
        assert response.json() == {"error": "Slowdown: 3 per 1 minute"}
        assert 1 <= int(response.headers["retry-after"]) <= 20
        assert client.get("/languages").status_code == 200


def test_html_keeps_its_markup(client: httpx.Client) -> None:
    answer = post(client, q="<p title='爱'>我 &amp; <b>爱</b></p>", format="html")
    assert answer[1]["translatedText"].startswith("<p title='爱'>")
    assert "<b>" in answer[1]["translatedText"]
    assert "&amp;" in answer[1]["translatedText"]
    assert post(client, q=["<i>我</i>", "爱"], format="html")[1]["translatedText"] == [
        "<i>w6211</i>",
        "w7231",
    ]


def test_halves_of_surrogate_pairs_are_replaced(client: httpx.Client) -> None:
    body = b'{"q": "\\ud83d", "source": "en", "target": "en"}'
    response = client.post("/translate", content=body, headers={"Content-Type": "application/json"})
    assert response.json() == {"translatedText": "?"}
    assert post(client, q="我\x00爱")[1]["translatedText"] == words("我\x00爱")
