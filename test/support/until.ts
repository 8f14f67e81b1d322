import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'

/** Looks every few ms. Resolves with what `look` gives once it gives something; a state that does not come is told by its name, after `limitMs`. */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false> | T | undefined | false,
  limitMs = 20_000,
): Promise<T> {
  const endMs = systemClock.bootMs() + limitMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (systemClock.bootMs() > endMs) throw new Error(`${what}: not within ${limitMs} ms`)
    await sleep(systemClock, 10)
  }
}
