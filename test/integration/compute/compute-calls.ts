import assert from 'node:assert/strict'
import type { ApiLab, Reply } from '../../support/api.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

export const version = (text: string) => ({ 'x-openstack-nova-api-version': text })

export type ComputeCalls = ReturnType<typeof computeCalls>

/** Calls of the server APIs, held against their contract. `of`: whose, when the lab has been started. */
export function computeCalls(
  of: () => { readonly lab: ApiLab; readonly token: string; readonly project: string },
) {
  async function call(
    method: Method,
    url: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Reply> {
    const request = { method, url, headers: { 'x-auth-token': of().token, ...headers } }
    return await of().lab.call(body === undefined ? request : { ...request, body }, 'compute')
  }

  async function ok(
    method: Method,
    url: string,
    body?: unknown,
    status = 200,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Reply['body']> {
    const reply = await call(method, url, body, headers)
    assert.equal(reply.status, status, `${method} ${url}: ${reply.text}`)
    return reply.body
  }

  const get = async (url: string): Promise<Reply['body']> => await ok('GET', url)

  return { of, call, ok, get }
}
