import { fault } from '#base/fault.ts'

/* Failures of sessions, as the operator sees them. The codes of refused commands are part of the site contract. */

export const SESSION_UNKNOWN = fault({
  code: 'SESSION_UNKNOWN',
  retry: 'never',
  text: 'There is no such session at this site.',
  hint: 'Check the id, and whether the session was closed.',
})

export const STALE_EPOCH = fault({
  code: 'STALE_EPOCH',
  retry: 'never',
  text: 'The request was made under an epoch that is over.',
  hint: 'Read the ownership record again: another change came first.',
})

export const NOT_CONSISTENT = fault({
  code: 'NOT_CONSISTENT',
  retry: 'never',
  text: 'The volumes at this site are not known to be a consistent copy.',
  hint: 'Use the other site, or repeat with force and accept that writes are missing.',
})

export const NOT_WRITER = fault({
  code: 'NOT_WRITER',
  retry: 'never',
  text: 'This site is not the writer of the session.',
  hint: 'Send the request to the site that the ownership record names.',
})

export const WRONG_STATE = fault({
  code: 'WRONG_STATE',
  retry: 'never',
  text: 'The session is not in a state in which this can be done.',
  hint: 'Look at the phase of the session; repeat when it has changed.',
})

export const VOLUME_BUSY = fault({
  code: 'VOLUME_BUSY',
  retry: 'never',
  text: 'The volume belongs to another session.',
  hint: 'End the protection of the volume first.',
})

export const MEMBER_CHANGED = fault({
  code: 'MEMBER_CHANGED',
  retry: 'never',
  text: 'A member of the session was named with another volume than before.',
  hint: 'Remove the pair and add it again; an index is never given to another volume.',
})

export const NOT_YET = fault({
  code: 'NOT_YET',
  retry: 'later',
  text: 'The session has taken the change over but cannot answer clients yet.',
  hint: 'Repeat; if it lasts, look at the link to the other site and at the control plane.',
})

export const SESSION_FAILED = fault({
  code: 'SESSION_FAILED',
  retry: 'never',
  text: 'The session stopped at this site because the disk did not keep its state or its data.',
  hint: "Look at the agent's log and the disk. Fail over to the other site, or repair the disk and start the agent again.",
})

export const VERIFY_RUNNING = fault({
  code: 'VERIFY_RUNNING',
  retry: 'never',
  text: 'Another verification of the session is under way.',
  hint: 'Wait for its end, or cancel it.',
})

export const COPY_IS_GOOD = fault({
  code: 'COPY_IS_GOOD',
  retry: 'never',
  text: 'This copy is good, and rebuilding it would leave the group without one until the new copy is complete.',
  hint: 'Verify it, with repair if need be. To replace it all the same, repeat with force.',
})
