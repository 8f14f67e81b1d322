import { randomBytes, randomInt } from 'node:crypto'

/* Secrets of the first administrator. They are made here, written to files of mode 0600, and appear nowhere else. */

const UPPER_AND_DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'

/** 20 characters, about 103 bits; an identifier that may be shown. */
export const newAccessKey = (): string =>
  Array.from({ length: 20 }, () => UPPER_AND_DIGITS[randomInt(36)]).join('')

/** 40 characters, 240 bits. */
export const newSecretKey = (): string => randomBytes(30).toString('base64url')

/** 24 characters, 144 bits. */
export const newPassword = (): string => randomBytes(18).toString('base64url')
