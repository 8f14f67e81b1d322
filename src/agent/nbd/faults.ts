import { fault } from '#base/fault.ts'

export const NBD_LISTEN_FAILED = fault({
  code: 'NBD_LISTEN_FAILED',
  retry: 'later',
  text: 'The NBD exports cannot be offered at this address.',
  hint: 'Another process listens there, the directory is missing, or the port needs privileges. See the cause.',
})
