import { fault } from '#base/fault.ts'

export const DIVERGENCE_UNKNOWN = fault({
  code: 'DIVERGENCE_UNKNOWN',
  retry: 'never',
  text: 'There is no such divergence record, or not of that volume.',
  hint: 'List the divergence records of the group.',
})

export const DIVERGENCE_NOT_READY = fault({
  code: 'DIVERGENCE_NOT_READY',
  retry: 'later',
  text: 'The divergence record is still being put together, or what it was made of is gone.',
  hint: 'Show it: its state and reason say which.',
})

export const RANGE_NOT_KEPT = fault({
  code: 'RANGE_NOT_KEPT',
  retry: 'never',
  text: 'The divergence record does not hold that range.',
  hint: 'Ask for a part of one of its ranges.',
})
