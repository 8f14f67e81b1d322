/**
 * Rules for text that clients choose. Lengths count UTF-8 bytes, not characters: a name of 40 umlauts has 80 bytes
 * and is too long for a limit of 64, although it has 40 characters.
 */

/** Protection groups, pairs, instances and drills. */
export const NAME_BYTES_MAX = 64
export const DESCRIPTION_BYTES_MAX = 64
/** Volumes, whose API inherits the larger limit of its own family. */
export const VOLUME_TEXT_BYTES_MAX = 255

const NAME = /^[A-Za-z0-9._-]+$/

export const byteLength = (text: string): number => Buffer.byteLength(text, 'utf8')

/** 1-64 bytes of ASCII letters, digits, dot, underscore and hyphen. */
export const isName = (value: unknown): value is string =>
  typeof value === 'string' && NAME.test(value) && byteLength(value) <= NAME_BYTES_MAX

/** At most 64 bytes, without angle brackets (they could become markup in somebody's console) and control characters. */
export const isDescription = (value: unknown): value is string =>
  typeof value === 'string' &&
  byteLength(value) <= DESCRIPTION_BYTES_MAX &&
  !/[<>]/.test(value) &&
  isStorable(value)

/** Name or description of a volume: at most 255 bytes of anything that both databases can store. */
export const isVolumeText = (value: unknown): value is string =>
  typeof value === 'string' && byteLength(value) <= VOLUME_TEXT_BYTES_MAX && isStorable(value)

/** PostgreSQL refuses NUL in text, and a lone surrogate would come back as another character. */
export const isStorable = (text: string): boolean => !text.includes('\0') && text.isWellFormed()
