"""Music: heard, seen as a wave, and paid like everything else."""

from playwright.async_api import Browser, expect

from tests.browser.chrome import IN_A_BROWSER
from tests.browser.watching import WatchPage, paid_in_full, watching
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER

_PAINTED = """() => {
  const canvas = document.querySelector('#wave');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let played = 0, heard = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] < 200) continue;
    if (data[at] === 0x3c && data[at + 1] === 0xcb) played += 1; else heard += 1;
  }
  return [played, heard];
}"""


async def painted(watch: WatchPage) -> tuple[int, int]:
    """Pixels of the wave: of what was played, and of what is at hand after it."""
    played, heard = await watch.page.evaluate(_PAINTED)
    return played, heard


async def test_it_plays_with_its_wave_and_is_paid(demo: Demo, browser: Browser) -> None:
    async with watching(browser, demo, "nightwalk") as watch:
        wave, clock = watch.page.locator("#wave"), watch.page.locator("#clock")
        await watch.play("Test wallet")
        await watch.playing(2)
        await expect(wave).to_be_visible()
        await expect(clock).to_have_text("0:02 / 1:00")
        played, heard = await painted(watch)
        assert played > 0 and heard > 0
        await watch.playing(4)
        assert (await painted(watch))[0] > played

        box = await wave.bounding_box()
        assert box is not None
        await wave.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
        await watch.playing(1)
        assert 30 <= await watch.position() < 40
        await watch.pause()
        await paid_in_full(watch)
        await watch.tab.check()
