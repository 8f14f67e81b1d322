import { type LabTiming, TIMING } from '../torture/lab/lab.ts'

/** The times of the agents around a lease and a silence, in the shares that they have by default; text: why these two do not fit. */
export function timingOf({
  leaseMs,
  peerSilenceMs,
}: Pick<LabTiming, 'leaseMs' | 'peerSilenceMs'>): LabTiming | string {
  if (peerSilenceMs >= leaseMs) return 'the silence must be shorter than the lease'
  return {
    ...TIMING,
    leaseMs,
    peerSilenceMs,
    heartbeatMs: Math.max(50, Math.floor(peerSilenceMs / 6)),
    renewMs: Math.max(100, Math.floor(leaseMs / 4)),
  }
}
