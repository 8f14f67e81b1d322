import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import type { SignedRequest } from './authenticator.ts'

/* Request signatures SDK-HMAC-SHA256, both forms: pure, no keys are looked up and no clock is read.
 *
 * The client signs a canonical form of its request:
 *
 *   GET                                              method
 *   /v2/P/volumes/                                   path, each segment escaped, always ending in a slash
 *   limit=2&name=my%20disk                           query, sorted and escaped
 *   host:api.example.test                            the headers that it names, in its order, one per line
 *   x-sdk-date:20240102T030405Z
 *                                                    (an empty line)
 *   host;x-sdk-date                                  their names
 *   e3b0c442...                                      SHA-256 of the body
 *
 * and the signature is an HMAC over `SDK-HMAC-SHA256`, the date, [the scope,] and the hash of that.
 *
 *   Access form       key = the secret as it is
 *   Credential form   the scope date/region/service/sdk_request is signed too; key = chain of HMACs over its parts
 *
 * The clients disagree about details (is an escaped path escaped again? what is the body of a POST without one?), and
 * a server sees only the wire. So there are a few candidates for path, query and body, and a signature is right when it fits
 * one combination. Every candidate is a function of the request alone: none lets a sender change what was signed,
 * with two exceptions inherited from the Credential client: a second value of a repeated query name, and the query of a POST
 * without body, are not covered by the canonical query there (the latter is by the body hash).
 */

export const ALGORITHM = 'SDK-HMAC-SHA256'

const ACCESS_FORM =
  /^SDK-HMAC-SHA256 Access=([^,\s]+), ?SignedHeaders=([a-z0-9_;-]+), ?Signature=([0-9a-f]{64})$/
const CREDENTIAL_FORM =
  /^SDK-HMAC-SHA256 Credential=([^/,\s]+)\/(\d{8})\/([^/]*)\/([^/]*)\/sdk_request, ?SignedHeaders=([a-z0-9_;-]+), ?Signature=([0-9a-f]{64})$/

export interface Authorization {
  readonly accessKey: string
  /** In the client's order, lower case. */
  readonly signedHeaders: readonly string[]
  readonly signature: string
  /** Of the Credential form; null for the Access form. Region and service may be empty. */
  readonly scope: {
    readonly date: string
    readonly region: string
    readonly service: string
  } | null
}

/** The Authorization header, or null when it is neither form. */
export function parseAuthorization(header: string): Authorization | null {
  const access = ACCESS_FORM.exec(header)
  if (access !== null) {
    const [, accessKey = '', headers = '', signature = ''] = access
    return { accessKey, signedHeaders: headers.split(';'), signature, scope: null }
  }
  const credential = CREDENTIAL_FORM.exec(header)
  if (credential === null) return null
  const [, accessKey = '', date = '', region = '', service = '', headers = '', signature = ''] =
    credential
  const scope = { date, region, service }
  return { accessKey, signedHeaders: headers.split(';'), signature, scope }
}

const DATE = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/

/** `20240102T030405Z` as milliseconds since 1970; null when it is no such date. */
export function parseSdkDate(text: string): number | null {
  const parts = DATE.exec(text)
  if (parts === null) return null
  const [, year, month, day, hour, minute, second] = parts
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  return Number.isNaN(ms) ? null : ms
}

/** Whether `secret` made the signature over this request. Compares in constant time. */
export function signatureFits(
  request: SignedRequest,
  authorization: Authorization,
  sdkDate: string,
  secret: string,
): boolean {
  const given = Buffer.from(authorization.signature, 'hex')
  const key = signingKey(authorization, secret)
  let fits = false
  for (const canonical of canonicalRequests(request, authorization)) {
    const made = createHmac('sha256', key)
      .update(stringToSign(canonical, authorization, sdkDate))
      .digest()
    if (timingSafeEqual(made, given)) fits = true
  }
  return fits
}

/** Exported for clients: tests and the benchmark sign with it. */
export function stringToSign(
  canonical: string,
  { scope }: Pick<Authorization, 'scope'>,
  sdkDate: string,
): string {
  const scopeLine =
    scope === null ? [] : [`${scope.date}/${scope.region}/${scope.service}/sdk_request`]
  return [ALGORITHM, sdkDate, ...scopeLine, sha256(canonical)].join('\n')
}

export function signingKey({ scope }: Pick<Authorization, 'scope'>, secret: string): Buffer {
  if (scope === null) return Buffer.from(secret)
  return [scope.date, scope.region, scope.service, 'sdk_request'].reduce(
    (key, part) => createHmac('sha256', key).update(part).digest(),
    Buffer.from(`SDK${secret}`),
  )
}

/** Every canonical form in which a known client could have signed the request. */
export function canonicalRequests(
  request: SignedRequest,
  authorization: Pick<Authorization, 'signedHeaders' | 'scope'>,
): string[] {
  const { signedHeaders, scope } = authorization
  const [path, query] = splitTarget(request.target)
  const collapse = scope !== null
  const headers = signedHeaders
    .map((name) => `${name}:${headerValue(request, name, collapse)}\n`)
    .join('')
  const names = signedHeaders.join(';')
  const forms = unique(
    queryForms(query, scope !== null).flatMap((canonicalQuery) => {
      const plain = bodyHashes(request).map((hash) => ({ query: canonicalQuery, hash }))
      // The Credential client takes the query of a POST without body for its body.
      const moved = scope !== null && request.method === 'POST' && request.body.length === 0
      return moved ? [...plain, { query: '', hash: sha256(canonicalQuery) }] : plain
    }),
  )
  return pathForms(path).flatMap((canonicalPath) =>
    forms.map(({ query: canonicalQuery, hash }) =>
      [request.method.toUpperCase(), canonicalPath, canonicalQuery, headers, names, hash].join(
        '\n',
      ),
    ),
  )
}

const splitTarget = (target: string): [string, string] => {
  const at = target.indexOf('?')
  return at < 0 ? [target, ''] : [target.slice(0, at), target.slice(at + 1)]
}

/** Segments decoded and escaped once (Go, Python), and the wire form escaped as it stands (Node). */
function pathForms(path: string): string[] {
  const closed = path.endsWith('/') ? path : `${path}/`
  const again = closed.split('/').map(escape).join('/')
  const segments = closed.split('/').map(decode)
  if (segments.includes(null)) return [again]
  return unique([segments.map((segment) => escape(segment ?? '')).join('/'), again])
}

/** `+` means a space to some encoders and itself to others. */
function queryForms(query: string, credentialForm: boolean): string[] {
  if (query === '') return ['']
  const readings = query.includes('+') ? [query, query.replaceAll('+', '%20')] : [query]
  return unique(
    readings.flatMap((reading) => {
      const pairs = reading
        .split('&')
        .filter((pair) => pair !== '')
        .map((pair) => {
          const at = pair.indexOf('=')
          const [name, value] = at < 0 ? [pair, ''] : [pair.slice(0, at), pair.slice(at + 1)]
          return { name: decode(name) ?? name, value: decode(value) ?? value }
        })
      const bytewise = pairs
        .toSorted((a, b) => compareBytes(a.name, b.name) || compareBytes(a.value, b.value))
        .map(join)
      if (!credentialForm) return [bytewise.join('&')]
      const names = new Set<string>()
      const first = pairs.filter(({ name }) => !names.has(name) && names.add(name))
      const caseless = first
        .map((pair) => ({ key: escape(pair.name).toLowerCase(), text: join(pair) }))
        .toSorted((a, b) => compareBytes(a.key, b.key))
        .map(({ text }) => text)
      return [caseless.join('&'), bytewise.join('&')]
    }),
  )
}

const join = ({ name, value }: { name: string; value: string }): string =>
  `${escape(name)}=${escape(value)}`

/**
 * The hash that the client announced if it announced one (`UNSIGNED-PAYLOAD` leaves the body out), else that of the body.
 * An announced digest that is not the body's is not among the candidates.
 */
function bodyHashes(request: SignedRequest): string[] {
  const real = sha256(request.body)
  const announced = request.headers['x-sdk-content-sha256']
  if (typeof announced !== 'string' || announced.trim() !== UNSIGNED_PAYLOAD) return [real]
  // The Python client signs the hash of nothing for an empty body, whatever it announces.
  return request.body.length === 0 ? [UNSIGNED_PAYLOAD, real] : [UNSIGNED_PAYLOAD]
}

const UNSIGNED_PAYLOAD = 'UNSIGNED-PAYLOAD'

function headerValue(request: SignedRequest, name: string, collapse: boolean): string {
  const value = request.headers[name]
  const text = (typeof value === 'string' ? value : (value?.join(', ') ?? '')).trim()
  return collapse ? text.replaceAll(/\s+/g, ' ') : text
}

/** Percent-encoding with upper-case digits over UTF-8; only letters, digits and `-._~` stay. */
export const escape = (text: string): string =>
  encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  )

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    if (error instanceof URIError) return null
    throw error
  }
}

const compareBytes = (a: string, b: string): number =>
  Buffer.compare(Buffer.from(a), Buffer.from(b))

const sha256 = (content: string | Uint8Array): string =>
  createHash('sha256').update(content).digest('hex')

function unique<T>(values: readonly T[]): T[] {
  const seen = new Set<string>()
  return values.filter((value) => {
    const key = JSON.stringify(value)
    return !seen.has(key) && seen.add(key)
  })
}
