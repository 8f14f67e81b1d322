import { type DestinationStream, type Logger, pino } from 'pino'

export type Log = Logger

/** JSON lines, one logger per process. Secrets are redacted by path here and never passed in by value. */
export function createLog(part: string, level = 'info', destination?: DestinationStream): Log {
  const options = {
    level,
    base: { part },
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: {
      paths: [
        'password',
        'secret',
        'secret_key',
        'token',
        '*.password',
        '*.secret',
        '*.secret_key',
        '*.token',
        'headers.authorization',
        'headers["x-auth-token"]',
        'headers["x-subject-token"]',
      ],
      censor: '[redacted]',
    },
  }
  return destination === undefined
    ? pino(options, pino.destination({ dest: 2, sync: true }))
    : pino(options, destination)
}
