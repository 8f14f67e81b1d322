import { uptime } from 'node:os'
import koffi from 'koffi'
import type { Clock } from '../clock.ts'

const CLOCK_BOOTTIME = 7

/** CLOCK_BOOTTIME through libc: os.uptime() has the same origin but only 10 ms steps. */
function boottimeReader(): () => number {
  try {
    const libc = koffi.load('libc.so.6')
    const gettime = libc.func('int clock_gettime(int id, _Out_ int64_t *spec)')
    const spec = [0, 0]
    return () => {
      gettime(CLOCK_BOOTTIME, spec)
      return Number(spec[0]) * 1000 + Number(spec[1]) / 1e6
    }
  } catch {
    return () => uptime() * 1000
  }
}

const readBootMs = boottimeReader()

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  bootMs: () => readBootMs(),
  after(delayMs, fire) {
    const timer = setTimeout(fire, delayMs)
    return () => clearTimeout(timer)
  },
}
