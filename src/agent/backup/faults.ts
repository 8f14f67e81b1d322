import { fault } from '#base/fault.ts'

export const NO_VAULT = fault({
  code: 'NO_VAULT',
  retry: 'never',
  text: 'This agent has no vault.',
  hint: 'Set vault.place and vault.keyFile in the configuration of the agents of this region, and start them again.',
})

export const WORK_UNKNOWN = fault({
  code: 'WORK_UNKNOWN',
  retry: 'never',
  text: 'No work of this name was started here, or it ended long ago.',
  hint: 'Start it; what the vault holds already is not stored again.',
})
