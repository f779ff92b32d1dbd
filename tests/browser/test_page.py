"""The page in a real browser: everything a reader can do to it, by pointer and by keyboard, and that nothing of it breaks."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from pretrain.report.page import render
from pretrain.report.page_data import page_data
from pretrain.report.reading import read_runs
from pretrain.report.watch import Latest, serve
from tests.browser.chromium import Chromium, find
from tests.made_curves import long_run, make_curves

pytestmark = pytest.mark.skipif(find() is None, reason="no Chromium is installed; on Debian and Ubuntu: apt install chromium")

HOSTILE = "<img src=x onerror=document.title='caught'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """CAME and AdamW with two seeds each, a run with an evil name that was killed, and a GPT-2."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        make_curves(folder / f"came_{seed}", "came", 1e-3, seed, final_loss=2.0 + 0.1 * seed)
        make_curves(folder / f"adamw_{seed}", "adamw", 3e-3, seed, final_loss=2.5 + 0.1 * seed)
    make_curves(folder / HOSTILE, "lamb", final_loss=3.0, ending=None)
    make_curves(folder / "gpt", "came", objective="clm", final_loss=3.5)
    page = folder / "report.html"
    page.write_text(render(page_data(read_runs([folder]))))
    return page.as_uri()


@pytest.fixture
def page(browser: Chromium, address: str) -> Iterator[Chromium]:
    browser.size(1280, 1600)
    browser.goto(address)
    yield browser
    assert browser.complaints() == []


def texts(page: Chromium, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent.trim())")


def lines(page: Chromium, curve: str = "eval/loss") -> dict[str, int]:
    """What a chart draws: the label of each line and how many points it has."""
    return page.run(f"Object.fromEntries(charts.get({json.dumps(curve)}).lines.map(line => [line.label, line.x.length]))")


def scales(page: Chromium, curve: str = "eval/loss") -> dict:
    return page.run(f"(({{x, y}}) => ({{x: [x.low, x.high, x.log], y: [y.low, y.high, y.log]}}))(charts.get({json.dumps(curve)}).scales)")


def inked(page: Chromium, curve: str = "eval/loss") -> int:
    """Pixels in a series' colour."""
    return page.run(
        f"""(() => {{ const canvas = charts.get({json.dumps(curve)}).canvas, context = canvas.getContext('2d');
        const found = context.getImageData(0, 0, canvas.width, canvas.height).data; let count = 0;
        for (let i = 0; i < found.length; i += 4) if (Math.max(found[i], found[i+1], found[i+2]) - Math.min(found[i], found[i+1], found[i+2]) > 60) count++;
        return count; }})()"""  # noqa: E501
    )


def plot(page: Chromium, curve: str = "eval/loss") -> tuple[float, float, float, float]:
    return page.box(f'[data-curve="{curve}"] .plot')


def test_it_loads_nothing_and_shows_runs_charts_and_verdict(page: Chromium) -> None:
    sent = [event["params"]["request"]["url"] for event in page.events if event.get("method") == "Network.requestWillBeSent"]
    assert len(sent) == 1 and sent[0].startswith("file:")
    assert texts(page, "#runs tbody th") == [HOSTILE, "adamw_0", "adamw_1", "came_0", "came_1"]
    assert texts(page, ".chart h3") == ["Validation loss", "MLM accuracy", "Training loss", "Throughput"]
    assert set(lines(page)) == {"came, 2 seeds", "adamw, 2 seeds", HOSTILE}
    assert inked(page) > 500
    assert "! killed" in texts(page, "#runs tbody tr:first-child td")
    assert any("better" in text or "no difference" in text for text in texts(page, "#verdicts td.left"))
    assert page.run("document.title") == "6 runs compared"  # no name became HTML
    assert page.run("document.querySelectorAll('img').length") == 0


def test_the_legend_hides_isolates_and_highlights(page: Chromium) -> None:
    before = inked(page)
    page.click('#legend button[data-entry="group 1"]')
    assert "adamw, 2 seeds" not in lines(page) and inked(page) < before
    assert page.run("document.querySelector('#legend [data-entry=\"group 1\"]').getAttribute('aria-pressed')") == "false"
    assert page.run("[...document.querySelectorAll('#runs tbody input')].map(e => e.checked)") == [True, False, False, True, True]
    page.press("Enter")  # the button still has the focus
    assert "adamw, 2 seeds" in lines(page)
    page.press("Enter", shift=True)
    assert list(lines(page)) == ["adamw, 2 seeds"]
    page.click('#legend button[data-entry="group 2"]')
    assert page.run("chosen.highlighted") == "group 2"
    page.click("#runs tbody tr:nth-child(4) input")  # came_0 of the group: the line is came_1 alone
    assert set(lines(page)) == {"adamw, 2 seeds", "came, 2 seeds"}
    assert page.run("charts.get('eval/loss').lines.find(line => line.key === 'group 2').low") is None


def test_seeds_are_a_mean_with_a_band_or_lines(page: Chromium) -> None:
    came = page.run(
        "(({y, low, high}) => [y.at(-1), low.at(-1), high.at(-1)])(charts.get('eval/loss').lines.find(l => l.key === 'group 2'))"
    )
    assert came == pytest.approx([2.05, 2.0, 2.1])
    page.click("#band")
    assert set(lines(page)) == {"came_0", "came_1", "adamw_0", "adamw_1", HOSTILE}


def test_the_axes_change(page: Chromium) -> None:
    assert scales(page)["x"] == [0, 40, False]
    page.click("input[value=tokens]")
    assert scales(page)["x"][1] == 40 * 8 * 16
    page.click("input[value=wall_seconds]")
    assert scales(page)["x"][1] == 40 * 36
    page.click("#log-y")
    page.click("#log-x")
    found = scales(page)
    assert found["y"][2] and found["x"] == [360, 1440, True]
    assert inked(page) > 500


def test_smoothing_smooths_training_curves_and_no_evaluation(page: Chromium) -> None:
    before = page.run("charts.get('train/loss').lines.map(line => Array.from(line.y))")
    page.box("#smoothing")
    page.run("document.querySelector('#smoothing').focus()")
    for _ in range(60):
        page.press("ArrowRight")
    assert texts(page, "#smoothing-value") == ["0.60"]
    after = page.run("charts.get('train/loss').lines.map(line => Array.from(line.y))")
    assert after[0][-1] > before[0][-1] + 0.05  # behind a falling curve
    assert page.run("charts.get('eval/loss').lines.every(line => line.faint === null)")


def test_a_drag_zooms_all_charts_and_a_double_click_resets(page: Chromium) -> None:
    left, top, width, height = plot(page)
    page.drag((left + 200, top + 100), (left + 400, top + 104))
    low, high, _ = scales(page)["x"]
    assert 5 < low < high < 35 and scales(page, "train/loss")["x"][:2] == [low, high]
    assert float(page.run("document.querySelector('#from').value")) == pytest.approx(low, rel=1e-3)
    page.drag((left + 150, top + 60), (left + 350, top + 160))  # a box: y of this chart too
    assert scales(page)["y"][1] - scales(page)["y"][0] < 2 and scales(page)["x"][0] > low
    page.run("document.querySelector('[data-curve=\"eval/loss\"] .plot').dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))")
    assert scales(page)["x"] == [0, 40, False]
    page.type_into("#from", "10")
    page.type_into("#to", "30")
    assert scales(page)["x"][:2] == [10, 30]
    page.click("#reset")
    assert scales(page)["x"][:2] == [0, 40]


def test_a_value_is_read_by_pointer_and_by_keyboard(page: Chromium) -> None:
    left, top, width, _ = plot(page)
    page.move(left + width - 16, top + 100)
    (tip,) = texts(page, '[data-curve="eval/loss"] .tip')
    assert tip.startswith("step 40") and "came, 2 seeds2.05 (2 to 2.1)" in tip
    page.run("document.querySelector('[data-curve=\"eval/loss\"] .plot').focus()")
    page.press("End")
    page.press("ArrowLeft")
    (said,) = texts(page, '[data-curve="eval/loss"] [aria-live]')
    assert said.startswith("step 39") and "came, 2 seeds 2.05" in said
    page.press("+")
    assert scales(page)["x"][1] - scales(page)["x"][0] == pytest.approx(20)
    page.press("Escape")
    assert scales(page)["x"][:2] == [0, 40]


def test_the_table_sorts(page: Chromium) -> None:
    page.click('th[data-column="loss"] button')
    assert texts(page, "#runs tbody th") == ["came_0", "came_1", "adamw_0", "adamw_1", HOSTILE]
    assert page.run("document.querySelector('th[data-column=loss]').getAttribute('aria-sort')") == "ascending"
    page.press("Enter")
    assert texts(page, "#runs tbody th") == [HOSTILE, "adamw_1", "adamw_0", "came_1", "came_0"]
    page.click('th[data-column="steps_to_target"] button')  # who has not reached it comes last, up or down
    page.press("Enter")
    assert set(texts(page, "#runs tbody th")[-2:]) == {HOSTILE, "adamw_1"}


def test_steps_to_target_follow_the_target(page: Chromium) -> None:
    def steps() -> dict[str, str]:
        place = page.run("[...document.querySelectorAll('#runs thead th')].findIndex(e => e.dataset.column === 'steps_to_target') + 1")
        return dict(zip(texts(page, "#runs tbody th"), texts(page, f"#runs tbody tr > :nth-child({place})"), strict=True))

    assert page.run("document.querySelector('#target').value") == "2.5"  # AdamW's best
    assert steps() == {HOSTILE: "-", "adamw_0": "40", "adamw_1": "-", "came_0": "40", "came_1": "40"}
    page.type_into("#target", "3.36")
    assert steps() == {HOSTILE: "40", "adamw_0": "30", "adamw_1": "30", "came_0": "30", "came_1": "30"}
    page.run("document.querySelector('#score').value = 'mlm_accuracy'; document.querySelector('#score').dispatchEvent(new Event('change'))")
    assert page.run("document.querySelector('#target').value") == "0.4"  # 1 / 2.5
    assert steps()["came_0"] == "40" and steps()[HOSTILE] == "-"


def test_runs_are_filtered_and_curves_chosen(page: Chromium) -> None:
    page.type_into("#filter", "came")
    assert texts(page, "#runs tbody th") == ["came_0", "came_1"] and list(lines(page)) == ["came, 2 seeds"]
    page.click(".menu summary")
    page.click('#curves input[value="train/lr"]')
    assert "Learning rate" in texts(page, ".chart h3")
    page.click('#curves input[value="train/loss"]')
    assert "Training loss" not in texts(page, ".chart h3")


def test_another_objective_has_its_own_scores(page: Chromium) -> None:
    page.run("document.querySelector('#objective').value = 'clm'; document.querySelector('#objective').dispatchEvent(new Event('change'))")
    assert texts(page, "#runs tbody th") == ["gpt"]
    assert texts(page, ".chart h3")[:2] == ["Validation loss", "Validation perplexity"]


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (400, False), (400, True)])
def test_it_fits_small_screens_and_dark_ones(browser: Chromium, address: str, width: int, dark: bool) -> None:
    browser.size(width, 900, dark)
    browser.goto(address)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    browser.click("#theme")
    assert browser.run("document.documentElement.dataset.theme") == ("light" if dark else "dark")
    assert inked(browser) > 200 or browser.run("charts.get('eval/loss').stale")
    assert browser.complaints() == []


def test_it_prints_light_and_is_dark_again(browser: Chromium, address: str, tmp_path: Path) -> None:
    browser.size(1280, 900, dark=True)
    browser.goto(address)
    browser.run("window.states = () => [...charts.values()].map(chart => chart.stale)")
    browser.run("addEventListener('beforeprint', () => { window.printed = [document.documentElement.dataset.theme, ...states()] })")
    browser.pdf(tmp_path / "page.pdf")
    assert browser.run("printed") == ["light", False, False, False, False]  # those out of sight are drawn too
    assert browser.run("document.documentElement.dataset.theme") == "dark"
    assert (tmp_path / "page.pdf").stat().st_size > 20_000


def test_text_and_lines_stand_out_from_their_ground(page: Chromium) -> None:
    """WCAG: 4.5 for text, 3 for lines, in both themes."""
    contrast = """(() => { const of = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
        const light = hex => { const [r, g, b] = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const against = name => { const [a, b] = [light(of(name)), light(of('card'))].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); };
        return Object.fromEntries(['text', 'soft', 'good', 'bad', 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6'].map(name => [name, against(name)])); })()"""  # noqa: E501
    for _ in ("light", "dark"):
        found = page.run(contrast)
        assert all(ratio >= (3 if name[0] == "c" else 4.5) for name, ratio in found.items()), found
        page.click("#theme")


def test_fifty_long_runs_are_drawn_soon(browser: Chromium, tmp_path: Path) -> None:
    runs = [
        long_run(f"run {place}", 20_000, ("loss", "tokens_per_second"), place // 5, f"o{place % 5}") for place in range(50)
    ]
    (tmp_path / "page.html").write_text(render(page_data(runs)))
    browser.size(1280, 2400)
    browser.goto((tmp_path / "page.html").as_uri())
    assert browser.run("[...charts.values()].every(chart => !chart.stale)") and inked(browser) > 1000
    assert float(browser.run("document.documentElement.dataset.drawnAfter")) < 3000  # 0.2 s where nothing else runs
    assert browser.complaints() == []


def test_a_watched_page_shows_what_is_new_and_keeps_what_was_chosen(browser: Chromium, tmp_path: Path) -> None:
    make_curves(tmp_path / "runs" / "one", ending=None, steps=20)
    server = serve(Latest([str(tmp_path / "runs")], page_data), 0)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        browser.size(1280, 1600)
        browser.goto(f"http://localhost:{server.server_address[1]}/")
        browser.click("input[value=tokens]")
        make_curves(tmp_path / "runs" / "two", "adamw")
        browser.run("ask()")
        assert texts(browser, "#runs tbody th") == ["one", "two"]
        assert scales(browser)["x"][1] == 40 * 8 * 16
        assert texts(browser, "#live")[0].startswith("live")
        assert browser.complaints() == []
    finally:
        server.shutdown()
        server.server_close()
