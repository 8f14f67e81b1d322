import Fastify, {
  type FastifyError,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  LogController,
} from 'fastify'
import type { Socket } from 'node:net'
import { assert, BrokenInvariant } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import type { Authenticator } from '#control/identity/authenticator.ts'
import { type AuditLog, auditAnswer } from './audit.ts'
import { authenticateByBody, authenticateByHeaders, authorise } from './authenticate.ts'
import { isStorableText, parseBody } from './body.ts'
import type { Api, Dialect, RouteEntry } from './dialect.ts'
import { type RateLimit, rateLimit } from './rate-limit.ts'
import { type CommonRefusal, Refusal } from './refusal.ts'
import { compileValidator, InvalidInput } from './validation.ts'

/* The HTTP server under all dialects; see dialect.ts for the way of a request. */

/** Largest body. Volume metadata alone may have 1 MiB before its own refusal applies. */
export const BODY_BYTES_MAX = 2 * 1024 * 1024
/** Longest path segment. Ids have 64 characters at most; a longer name in its place is simply not found. */
const SEGMENT_CHARACTERS_MAX = 1_024
/** A request must have arrived completely within this time, so that slow senders cannot hold sockets for ever. */
const REQUEST_MS_MAX = 60_000

export interface AppOptions {
  readonly clock: Clock
  readonly log: Log
  readonly authenticator: Authenticator
  readonly audit: AuditLog
  /** Answers unknown paths that no dialect claims. One of `dialects`. */
  readonly fallback: Dialect
  readonly dialects: readonly Dialect[]
  readonly rate?: RateLimit
  /** PEM. Absent: plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined
  /** Told about every answer, for metrics. `ms` from the head of the request to the end of the answer. */
  observe?(answer: {
    readonly dialect: string
    readonly method: string
    readonly status: number
    readonly ms: number
  }): void
}

/** A server with all dialects mounted; not listening yet. */
export function createApp(options: AppOptions): Api {
  const { authenticator, audit, log, dialects, fallback } = options
  const rate = options.rate ?? rateLimit(options.clock)
  const routes: (RouteEntry & { readonly matches: RegExp })[] = []

  const settings: FastifyServerOptions = {
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    exposeHeadRoutes: false,
    genReqId: () => `req-${newId()}`,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: SEGMENT_CHARACTERS_MAX },
    clientErrorHandler: answerUnreadable,
    frameworkErrors: (error, request, reply) => {
      void answerUnroutable(error, request as FastifyRequest, reply as FastifyReply)
    },
    ...(options.tls === undefined ? {} : { https: { ...options.tls, minVersion: 'TLSv1.2' } }),
  }
  const app = Fastify(settings) as unknown as Api

  // Bodies of GET and DELETE are read and kept: signatures cover them. Nothing is parsed before the caller is known.
  app.addHttpMethod('GET', { hasBody: true, overrideExisting: true })
  app.addHttpMethod('HEAD', { hasBody: true, overrideExisting: true })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => {
    request.rawBody = body as Buffer
    done(null, undefined)
  })
  app.setValidatorCompiler(compileValidator)
  // Answers go out as the handler made them: a schema in a route is documentation and a test, not a filter.
  app.setSerializerCompiler(() => (value) => JSON.stringify(value))
  app.decorate('routeTable', routes)
  // The real values are set by the first hook of every request.
  app.decorateRequest('principal', null)
  app.decorateRequest('rawBody', null as never)
  app.decorateRequest('audit', null as never)

  const ownerOf = (path: string): Dialect => ownerOfPath(path, dialects) ?? fallback
  const dialectOf = (request: FastifyRequest): Dialect =>
    request.routeOptions.config.dialect ?? ownerOf(pathOf(request))
  const common = (dialect: Dialect, kind: CommonRefusal, message: string): Refusal => {
    const { status, code } = dialect.common[kind]
    return new Refusal(status, code, message)
  }

  app.addHook('onRequest', async (request, reply) => {
    stampIds(request, reply)
    request.rawBody = NO_BYTES
    request.audit = { target: null, detail: {} }
    const dialect = dialectOf(request)
    if (!rate.take(request.ip)) {
      throw common(dialect, 'too_many_requests', 'Too many requests from this address.')
    }
    if (request.routeOptions.config.access === 'open') return
    await authenticateByHeaders(authenticator, request, dialect)
  })

  app.addHook('preValidation', async (request) => {
    const dialect = dialectOf(request)
    const { config } = request.routeOptions
    if (config.access !== 'open') {
      await authenticateByBody(authenticator, request, dialect)
      assert(request.principal !== null, 'who is not refused is known')
      authorise(request, dialect, request.is404 ? null : config, request.principal)
    }
    if (request.is404) return
    refuseUnstorable(request, dialect)
    const parsed = parseBody(request.rawBody)
    if (!parsed.ok) throw common(dialect, 'malformed_body', parsed.reason)
    request.body = config.emptyBody === true ? (parsed.value ?? {}) : parsed.value
  })

  app.addHook('onSend', async (request, reply) => {
    await auditAnswer(audit, log, request, reply)
  })
  app.addHook('onResponse', async (request, reply) => {
    const { method, url, id } = request
    const user = request.principal?.user.id
    const { statusCode: status, elapsedTime: ms } = reply
    log.debug({ id, method, url, status, ms, user }, 'answered')
    options.observe?.({ dialect: dialectOf(request).name, method, status, ms })
  })

  /** Query and path text that the database could not hold is no valid id, name or filter either. */
  function refuseUnstorable(request: FastifyRequest, dialect: Dialect): void {
    const values = [
      ...Object.values(request.params as Record<string, unknown>),
      ...Object.values(request.query as Record<string, unknown>).flat(),
    ]
    if (values.every((value) => typeof value !== 'string' || isStorableText(value))) return
    throw common(dialect, 'invalid_input', 'The address contains characters that are no text.')
  }

  function refusalOf(error: unknown, request: FastifyRequest, dialect: Dialect): Refusal {
    if (error instanceof Refusal) return error
    if (error instanceof InvalidInput) {
      const pattern = request.routeOptions.url ?? ''
      return (
        dialect.invalid?.(error.issue, pattern) ?? common(dialect, 'invalid_input', error.message)
      )
    }
    const spelt = error instanceof Fault ? (dialect.fault?.(error) ?? null) : null
    if (spelt !== null) return spelt
    if (error instanceof Fault && error.kind.retry !== 'never') {
      log.warn({ err: error, id: request.id }, 'a request could not be served now')
      return common(dialect, 'unavailable', `${error.kind.text} ${error.kind.hint}`)
    }
    const { code, statusCode } = error as Partial<FastifyError>
    if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
      return common(dialect, 'too_large', `The body has more than ${BODY_BYTES_MAX} bytes.`)
    }
    if (code?.startsWith('FST_ERR_CTP_') === true && (statusCode ?? 500) < 500) {
      return common(dialect, 'malformed_body', 'The body cannot be read as announced.')
    }
    log.error({ err: error, id: request.id, method: request.method, url: request.url }, 'failed')
    if (error instanceof BrokenInvariant) endProcess(error)
    return common(dialect, 'internal', `Internal error; the log has more under ${request.id}.`)
  }

  app.setErrorHandler(async (error, request, reply) => {
    const dialect = dialectOf(request)
    const refusal = refusalOf(error, request, dialect)
    return await sendRefusal(reply, dialect, refusal, request.id)
  })

  app.setNotFoundHandler(async (request, reply) => {
    const path = pathOf(request)
    const here = routes.filter(({ matches }) => matches.test(path))
    const [known] = here
    if (known === undefined) {
      const dialect = ownerOf(path)
      const refusal = common(dialect, 'unknown_path', 'There is nothing at this address.')
      return await sendRefusal(reply, dialect, refusal, request.id)
    }
    const { dialect } = known
    void reply.header('allow', [...new Set(here.map(({ method }) => method))].join(', '))
    const refusal = common(dialect, 'method_not_allowed', `${request.method} is not possible here.`)
    return await sendRefusal(reply, dialect, refusal, request.id)
  })

  /** The address itself is broken (bad escapes, endless segments). Nothing was routed, so no hook has run. */
  async function answerUnroutable(
    error: FastifyError,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<void> {
    stampIds(request, reply)
    const dialect = ownerOf(pathOf(request))
    let refusal = common(dialect, 'unknown_path', `The address cannot be read: ${error.code}.`)
    try {
      await authenticateByHeaders(authenticator, request, dialect)
    } catch (denied) {
      refusal = refusalOf(denied, request, dialect)
    }
    await sendRefusal(reply, dialect, refusal, request.id)
  }

  for (const dialect of dialects) {
    assert(dialect.common.unauthenticated.status === 401, 'missing credentials are always 401')
    void app.register((scope, _options, done) => {
      scope.addHook('onRoute', (route) => {
        route.config = { ...route.config, dialect }
        for (const method of [route.method].flat()) {
          const { url, config: rules } = route
          routes.push({ method, url, rules, matches: patternOf(url), dialect })
        }
      })
      dialect.mount(scope as unknown as Api)
      done()
    })
  }
  return app
}

const NO_BYTES = Buffer.alloc(0)

const pathOf = (request: Pick<FastifyRequest, 'url'>): string =>
  request.url.replace(/[?#].*$/s, '') || '/'

/** The dialect with the longest matching prefix. */
function ownerOfPath(path: string, dialects: readonly Dialect[]): Dialect | undefined {
  let best: { dialect: Dialect; length: number } | undefined
  for (const dialect of dialects) {
    for (const prefix of dialect.prefixes) {
      const inside =
        path === prefix || path.startsWith(prefix.endsWith('/') ? prefix : `${prefix}/`)
      if (inside && prefix.length > (best?.length ?? -1)) best = { dialect, length: prefix.length }
    }
  }
  return best?.dialect
}

/** `/v1/:project_id/jobs/:id` as an expression over paths, trailing slash or not. */
function patternOf(url: string): RegExp {
  const source = url
    .replace(/\/$/, '')
    .split('/')
    .map((part) => {
      if (part === '*') return '.*'
      return part.startsWith(':') ? '[^/]+' : part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
    })
    .join('/')
  return new RegExp(`^${source}/?$`)
}

function stampIds(request: FastifyRequest, reply: FastifyReply): void {
  void reply.header('x-request-id', request.id).header('x-openstack-request-id', request.id)
}

async function sendRefusal(
  reply: FastifyReply,
  dialect: Dialect,
  refusal: Refusal,
  requestId: string,
): Promise<FastifyReply> {
  return await reply
    .code(refusal.status)
    .headers({ ...refusal.headers })
    .type('application/json; charset=utf-8')
    .serializer((body: unknown) => JSON.stringify(body))
    .send(dialect.envelope(refusal, requestId))
}

/** What arrived is not HTTP: there is no request yet, so the answer is written to the socket. */
function answerUnreadable(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const [status, reason] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'Request Header Fields Too Large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'Request Timeout']
        : [400, 'Bad Request']
  const body = JSON.stringify({ error: { code: status, title: reason, message: `${reason}.` } })
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\ncontent-type: application/json; charset=utf-8\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nx-request-id: req-${newId()}\r\nconnection: close\r\n\r\n${body}`,
  )
}

/** Outside every promise, so that the process's last resort gets it. */
function endProcess(error: Error): void {
  queueMicrotask(() => {
    throw error
  })
}
