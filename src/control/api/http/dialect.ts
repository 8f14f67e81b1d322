import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyTypeProvider,
  RawServerDefault,
} from 'fastify'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Static, TSchema } from 'typebox'
import type { Fault } from '#base/fault.ts'
import type { Principal, Role } from '#control/identity/principal.ts'
import type { CommonRefusal, Refusal } from './refusal.ts'

/* One API, several dialects: each has its own paths, words, codes and error bodies. What they share is done here, once,
 * and a dialect says only how it spells it.
 *
 *   request ──► id, rate ──► token or signature ──► project binding, role ──► JSON ──► schema ──► handler
 *                  │ 429          │ 401                  │ 403, 400             │ 400    │ 400       │ throws Refusal
 *                  └──────────────┴──────────────────────┴──────────────────────┴────────┴───────────┴──► envelope
 *
 * Unknown paths take the same way up to the project binding, so a caller without a valid token learns nothing about
 * which paths exist.
 */

/** Types request parts by the route's TypeBox schemas. */
interface TypeBoxProvider extends FastifyTypeProvider {
  validator: this['schema'] extends TSchema ? Static<this['schema']> : unknown
  serializer: this['schema'] extends TSchema ? Static<this['schema']> : unknown
}

/** The server as dialects see it: `app.get('/v1/:project_id/things', { schema, config }, handler)`. */
export type Api = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxProvider
>

/**
 * Who may call a route.
 * - `project` (default): callers bound to a project; when the path has `:project_id`, to that one.
 * - `user`: any valid token or signature, scoped or not.
 * - `administrator`: callers whose role on the whole domain is `admin`.
 * - `open`: everybody, no credentials are looked at.
 */
export type Access = 'project' | 'user' | 'administrator' | 'open'

/** A route's `config`. */
export interface RouteRules {
  readonly access?: Access
  /** Weakest role that may call it, for `project`. Default: `reader` for GET and HEAD, `operator` otherwise. */
  readonly role?: Role
  /** Audit name, verb last: `protection-group.failover`. Default: method and path pattern. */
  readonly audit?: string
  /** An absent body, or `null`, is taken as `{}` before it meets the schema. */
  readonly emptyBody?: true
  /** Not recorded in the audit log although its method may change something: queries by POST. */
  readonly query?: true
}

/** The first thing about a request that its schema does not allow. */
export interface InputIssue {
  readonly part: 'body' | 'querystring' | 'params' | 'headers'
  /** JSON pointer inside the part: `/server_group/name`; '' for the part itself. */
  readonly path: string
  /** JSON Schema keyword: `type`, `required`, `maxLength` ... */
  readonly keyword: string
  readonly message: string
}

export interface Dialect {
  /** `iam`, `sdrs` ... */
  readonly name: string
  /** Path prefixes whose unknown paths this dialect answers. The longest prefix of all dialects wins. */
  readonly prefixes: readonly string[]
  /** How the dialect spells what happens to all of them. */
  readonly common: Readonly<
    Record<CommonRefusal, { readonly status: number; readonly code: string }>
  >
  /** Body of every refusal. */
  envelope(refusal: Refusal, requestId: string): unknown
  /** Finds the code for input that a schema refused. Default: `common.invalid_input`. */
  invalid?(issue: InputIssue, pattern: string): Refusal
  /** Spells faults that its handlers let through; null leaves them to the common ones. */
  fault?(fault: Fault): Refusal | null
  /** Declares the routes. */
  mount(app: Api): void
}

/** A route as it was declared, for tests and documents that go through all of them. */
export interface RouteEntry {
  readonly method: string
  /** `/v1/:project_id/jobs/:id` */
  readonly url: string
  readonly rules: RouteRules
  readonly dialect: Dialect
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Every route of every dialect; complete once the server is ready. */
    readonly routeTable: readonly RouteEntry[]
  }
  interface FastifyContextConfig extends RouteRules {
    /** Set by the server when the dialect mounts its routes. */
    dialect?: Dialect
  }
  interface FastifyRequest {
    /** Who calls; null on open routes. Handlers use `principalOf`. */
    principal: Principal | null
    /** The bytes of the body as received, for signatures. */
    rawBody: Buffer
    /** What the audit log will say besides who, what and the result. */
    audit: { target: string | null; detail: Record<string, unknown> }
  }
}
