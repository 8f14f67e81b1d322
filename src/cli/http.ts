import { readFileSync } from 'node:fs'
import type { Fetch } from '#client/api.ts'

/** A fetch for the API client; `ca`: PEM file of the authority that signed the server's certificate. */
export function createFetch(ca: string | undefined): Fetch {
  if (ca === undefined) return async (url, init) => await fetch(url, init)
  const trusting = fetchTrusting(readFileSync(ca, 'utf8'))
  return async (url, init) => await (await trusting)(url, init)
}

/** Node's own fetch cannot be told whom to trust; the library it is made from can, and is loaded only then. */
async function fetchTrusting(ca: string): Promise<Fetch> {
  const { Agent, fetch: undiciFetch } = await import('undici')
  const dispatcher = new Agent({ connect: { ca }, keepAliveTimeout: 1_000 })
  return async (url, init) => await undiciFetch(url, { ...init, dispatcher })
}
