import type { SessionStatus } from '#wire/site/witness.ts'

/** What the writing site says of a session in sync with nothing written yet; `over` has what the test is about. */
export const sessionStatus = (over: Partial<SessionStatus> = {}): SessionStatus => ({
  session: 's',
  epoch: 1,
  state: 'in_sync',
  role: 'writer',
  phase: 'following',
  link: 'up',
  peer_silence_ms: 0,
  sequence: 0,
  acknowledged: 0,
  consistent: true,
  held_ms: null,
  progress: 100,
  copy_rate_bytes: 0,
  copy_kind: 'none',
  copy_sent_bytes: 0,
  unwitnessed: false,
  out_of_touch_ms: null,
  kept: null,
  unfit: null,
  members: [],
  ...over,
})
