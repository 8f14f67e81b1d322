import type { WitnessTime } from '#domain/ownership.ts'

/** Long after a clean start, with the leases that are the default; `over` has what the test is about. */
export const witnessTime = (over: Partial<WitnessTime> = {}): WitnessTime => ({
  bootMs: 100_000,
  waitUntilBootMs: 0,
  historyTrusted: true,
  leaseMs: 8_000,
  driftMs: 500,
  incarnation: 'one',
  ...over,
})
