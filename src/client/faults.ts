import { fault } from '#base/fault.ts'

export const API_UNREACHABLE = fault({
  code: 'API_UNREACHABLE',
  retry: 'later',
  text: 'The control plane does not answer there.',
  hint: 'Check the address, and that `holdfast up` or `holdfast control` runs.',
})

export const API_UNAUTHORIZED = fault({
  code: 'API_UNAUTHORIZED',
  retry: 'never',
  text: 'The control plane did not accept the user, password or token.',
  hint: 'Check the credentials file, HOLDFAST_CREDENTIALS or the OS_ variables.',
})

export const API_REFUSED = fault({
  code: 'API_REFUSED',
  retry: 'never',
  text: 'The control plane refused the request.',
  hint: 'Look with `list` and `show` at what there is and in which state; docs/compatibility explains the codes of each API.',
})

export const JOB_FAILED = fault({
  code: 'JOB_FAILED',
  retry: 'never',
  text: 'The job ended without success.',
  hint: '`show` of the resource says in which state it is, `holdfast job show JOB` which steps of a job were done. Repeat the command when the reason is gone.',
})

export const TIMED_OUT = fault({
  code: 'TIMED_OUT',
  retry: 'later',
  text: 'It did not happen in the time allowed; the operation itself goes on.',
  hint: 'Look at its state again later.',
})

export const AGENT_ABSENT = fault({
  code: 'AGENT_ABSENT',
  retry: 'later',
  text: 'No agent answers there.',
  hint: "Run this at the agent's own host, as the agent's user, and name its data directory; start the agent if it is down.",
})

export const AGENT_REFUSED = fault({
  code: 'AGENT_REFUSED',
  retry: 'never',
  text: 'The agent at this host refused.',
  hint: '`holdfast agent sessions` shows what it runs, and in which state.',
})
