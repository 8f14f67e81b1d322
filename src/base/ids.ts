import { createHash, randomBytes, randomUUID } from 'node:crypto'

/** A UUID with hyphens: volumes, groups, pairs, sessions. */
export const newId = (): string => randomUUID()

/** 32 lower-case hex characters: jobs, projects, users, domains. */
export const newHexId = (): string => randomBytes(16).toString('hex')

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
export const isUuid = (text: string): boolean => UUID.test(text)

/** A UUID that follows from a text: the same wherever and whenever it is asked for. */
export function derivedId(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex')
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-')
}
