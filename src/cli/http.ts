import { readFileSync } from 'node:fs'
import { Agent, fetch as undiciFetch } from 'undici'
import type { Fetch } from '#client/api.ts'

/** A fetch for the API client; `ca`: PEM file of the authority that signed the server's certificate. */
export function createFetch(ca: string | undefined): Fetch {
  const dispatcher = new Agent({
    connect: ca === undefined ? {} : { ca: readFileSync(ca, 'utf8') },
    keepAliveTimeout: 1_000,
  })
  return async (url, init) => await undiciFetch(url, { ...init, dispatcher })
}
