import { fault } from '#base/fault.ts'

export const NIC_UNUSABLE = fault({
  code: 'NIC_UNUSABLE',
  retry: 'never',
  text: 'A NIC of the server cannot be connected.',
  hint: 'Look at the reason: an address that is none, or a data directory whose path is too long for a unix socket (at most 107 bytes in all).',
})
