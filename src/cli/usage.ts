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

export const NO_CREDENTIALS = fault({
  code: 'NO_CREDENTIALS',
  retry: 'never',
  text: 'It is not known as whom to act.',
  hint: 'Give --data DIR (of `holdfast up`), --credentials FILE, or set the OS_ variables (OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME, OS_USER_DOMAIN_NAME).',
})
