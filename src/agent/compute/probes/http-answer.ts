/* One GET over a connection of its own. HTTP/1.0, so that the answer is plain and ends with the connection. */

/** Of the body, this much is looked at. */
export const BODY_BYTES_MAX = 64 * 1024
const HEAD_BYTES_MAX = 16 * 1024
export const HTTP_BYTES_MAX = HEAD_BYTES_MAX + BODY_BYTES_MAX

export function httpRequest(address: string, port: number, path: string): Buffer {
  const host = port === 80 ? address : `${address}:${port}`
  const lines = [
    `GET ${path} HTTP/1.0`,
    `Host: ${host}`,
    'User-Agent: holdfast-probe',
    'Accept: */*',
    'Connection: close',
  ]
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`)
}

export interface HttpAnswer {
  readonly status: number
  /** The first BODY_BYTES_MAX at most. */
  readonly body: Buffer
}

/** undefined: no HTTP, or its head is not there in whole. */
export function parseHttp(answer: Buffer): HttpAnswer | undefined {
  const headEnd = answer.indexOf('\r\n\r\n')
  if (headEnd < 0) return undefined
  const status = /^HTTP\/1\.[01] ([1-5][0-9]{2})(?: |\r|$)/.exec(
    answer.toString('latin1', 0, Math.min(headEnd, 64)),
  )?.[1]
  if (status === undefined) return undefined
  const body = answer.subarray(headEnd + 4, headEnd + 4 + BODY_BYTES_MAX)
  return { status: Number(status), body }
}
