import { Fault } from '#base/fault.ts'
import { API_REFUSED, API_UNAUTHORIZED, API_UNREACHABLE } from './faults.ts'

/* One user's way to one control plane: logs in when needed, once more when a token has ended, and turns every
 * refusal into a Fault that carries the server's own code and words. Works wherever there is a `fetch`. */

/** How to log in: a ready token, or user and password. */
export interface Login {
  /** Origin, without a trailing slash. */
  readonly url: string
  readonly token?: string
  readonly domain?: string
  readonly user?: string
  readonly password?: string
  /** Name or id of the project that the token is for; by id when both are given. */
  readonly projectId?: string
  readonly projectName?: string
}

export type Fetch = (url: string, init: FetchInit) => Promise<FetchReply>

export interface FetchInit {
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
  readonly signal: AbortSignal
}

export interface FetchReply {
  readonly status: number
  readonly headers: { get(name: string): string | null }
  text(): Promise<string>
  /** Needed for downloads only. */
  arrayBuffer?(): Promise<ArrayBuffer>
}

/** Detail of API_REFUSED: the status, and the code that the server's own documentation explains. */
export interface RefusalDetail {
  readonly status: number
  readonly code: string
  readonly message: string
  readonly requestId: string | null
}

const REQUEST_TIMEOUT_MS = 30_000

interface Token {
  readonly value: string
  readonly projectId: string
}

export class ApiSession {
  readonly #login: Login
  readonly #fetch: Fetch
  #token: Token | undefined

  constructor(login: Login, fetch: Fetch) {
    this.#login = login
    this.#fetch = fetch
    if (login.token !== undefined && login.projectId !== undefined) {
      this.#token = { value: login.token, projectId: login.projectId }
    }
  }

  get url(): string {
    return this.#login.url
  }

  /** Id of the project that this session acts in. Logs in when that is not known yet. */
  async projectId(): Promise<string> {
    return (await this.#ensureToken()).projectId
  }

  /** The token itself, for other programs. */
  async token(): Promise<string> {
    return (await this.#ensureToken()).value
  }

  /** Ends a token, this session's own or another. */
  async revoke(subject: string): Promise<void> {
    const path = '/v3/auth/tokens'
    const { value } = await this.#ensureToken()
    const headers = { 'X-Auth-Token': value, 'X-Subject-Token': subject }
    await readReply(await this.#call(path, { method: 'DELETE', headers }), 'DELETE', path)
  }

  get<T>(path: string): Promise<T> {
    return this.request<T>('GET', path)
  }

  post<T>(path: string, body: unknown): Promise<T> {
    return this.request<T>('POST', path, body)
  }

  put<T>(path: string, body: unknown): Promise<T> {
    return this.request<T>('PUT', path, body)
  }

  delete<T>(path: string, body?: unknown): Promise<T> {
    return this.request<T>('DELETE', path, body)
  }

  /**
   * One call with the session's token. `path` begins with a slash; `{project}` in it becomes the project's id. Settles
   * with the parsed body, undefined when there is none. Throws API_UNREACHABLE, API_UNAUTHORIZED or API_REFUSED.
   */
  async request<T>(method: string, path: string, body?: unknown): Promise<T> {
    const token = await this.#ensureToken()
    const shown = path.replaceAll('{project}', token.projectId)
    const reply = await this.#send(method, path, token, body)
    if (reply.status !== 401 || this.#login.password === undefined) {
      return (await readReply(reply, method, shown)) as T
    }
    this.#token = undefined
    const again = await this.#send(method, path, await this.#ensureToken(), body)
    return (await readReply(again, method, shown)) as T
  }

  /** The bytes that a GET answers with. Faults as for `request`. */
  async download(path: string): Promise<Uint8Array> {
    let reply = await this.#send('GET', path, await this.#ensureToken(), undefined)
    if (reply.status === 401 && this.#login.password !== undefined) {
      this.#token = undefined
      reply = await this.#send('GET', path, await this.#ensureToken(), undefined)
    }
    if (reply.status !== 200 || reply.arrayBuffer === undefined) {
      await readReply(reply, 'GET', path)
      throw new Fault(API_UNREACHABLE, `GET ${path} was answered without bytes`)
    }
    try {
      return new Uint8Array(await reply.arrayBuffer())
    } catch (error) {
      const doing = `reading GET ${path} (${reasonOf(error)})`
      throw new Fault(API_UNREACHABLE, doing, { url: this.#login.url }, error)
    }
  }

  #send(method: string, path: string, token: Token, body: unknown): Promise<FetchReply> {
    const headers: Record<string, string> = { 'X-Auth-Token': token.value }
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    return this.#call(path.replaceAll('{project}', token.projectId), {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  }

  async #call(path: string, init: Omit<FetchInit, 'signal'>): Promise<FetchReply> {
    try {
      const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS)
      return await this.#fetch(`${this.#login.url}${path}`, { ...init, signal })
    } catch (error) {
      const doing = `calling ${init.method} ${this.#login.url}${path} (${reasonOf(error)})`
      throw new Fault(API_UNREACHABLE, doing, { url: this.#login.url }, error)
    }
  }

  async #ensureToken(): Promise<Token> {
    this.#token ??= await this.#logIn()
    return this.#token
  }

  async #logIn(): Promise<Token> {
    const { token, user, password, domain, projectId, projectName } = this.#login
    const identity =
      token === undefined
        ? {
            methods: ['password'],
            password: { user: { name: user, password, domain: { name: domain } } },
          }
        : { methods: ['token'], token: { id: token } }
    const project =
      projectId === undefined
        ? { name: projectName, ...(domain === undefined ? {} : { domain: { name: domain } }) }
        : { id: projectId }
    const path = '/v3/auth/tokens'
    const reply = await this.#call(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ auth: { identity, scope: { project } } }),
    })
    const body = (await readReply(reply, 'POST', path)) as { token: { project?: { id: string } } }
    const value = reply.headers.get('x-subject-token')
    const id = body.token.project?.id
    if (value === null || id === undefined) {
      throw new Fault(API_UNAUTHORIZED, `logging in at ${this.#login.url} without getting a token`)
    }
    return { value, projectId: id }
  }
}

async function readReply(reply: FetchReply, method: string, path: string): Promise<unknown> {
  const text = await reply.text()
  const body = text === '' ? undefined : parseJson(text)
  if (reply.status >= 200 && reply.status < 300) return body
  const { code, message, hint } = readError(body, text)
  const words = wordsOf(message, code, hint)
  const doing = `${method} ${path} was answered with ${reply.status} ${code}: ${words}`
  const detail: RefusalDetail = {
    status: reply.status,
    code,
    message,
    requestId: reply.headers.get('x-request-id'),
  }
  if (reply.status === 401) throw new Fault(API_UNAUTHORIZED, doing, { ...detail })
  // Our own interface says itself what to do next.
  throw new Fault(hint === undefined ? API_REFUSED : { ...API_REFUSED, hint }, doing, { ...detail })
}

/** The sentence without what is told beside it: a fault of our own begins with its code and ends with its hint. */
function wordsOf(message: string, code: string, hint: string | undefined): string {
  const bare = message.startsWith(`${code}: `) ? message.slice(code.length + 2) : message
  const said = hint !== undefined && bare.endsWith(hint) ? bare.slice(0, -hint.length) : bare
  return said.trimEnd().replace(/\.$/, '')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined // an error page of something in between; its text is shown as it is
  }
}

interface SaidError {
  readonly code: string
  readonly message: string
  readonly hint: string | undefined
}

/** From any of the dialects' envelopes. */
function readError(body: unknown, text: string): SaidError {
  const whole = members(body)
  const inner = members(whole['error'] ?? Object.values(whole)[0])
  const code = whole['error_code'] ?? inner['code'] ?? ''
  const message = inner['message'] ?? whole['error_msg'] ?? text.slice(0, 500)
  const hint = inner['hint'] === undefined ? undefined : show(inner['hint'])
  return { code: show(code), message: show(message), hint }
}

const members = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}

const show = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : JSON.stringify(value)

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error && error.cause.message !== ''
    ? error.cause.message
    : error.message
}
