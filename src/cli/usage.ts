import { Fault, fault } from '#base/fault.ts'

export const USAGE = fault({
  code: 'USAGE',
  retry: 'never',
  text: 'Nothing was done.',
  hint: '`holdfast COMMAND --help` shows what the command takes.',
})

export const usageError = (doing: string): Fault => new Fault(USAGE, doing)

export const INTERRUPTED = fault({
  code: 'INTERRUPTED',
  retry: 'now',
  text: 'Everything that the command had started was stopped.',
  hint: 'Start it again at any time.',
})
