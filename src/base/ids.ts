import { randomBytes, randomUUID } from 'node:crypto'

/** A UUID with hyphens: volumes, groups, pairs, sessions. */
export const newId = (): string => randomUUID()

/** 32 lower-case hex characters: jobs, projects, users, domains. */
export const newHexId = (): string => randomBytes(16).toString('hex')

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
export const isUuid = (text: string): boolean => UUID.test(text)
