import { readFile } from 'node:fs/promises'
import Type, { type Static, type TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Agent, request as send } from 'undici'
import { Fault, fault } from '#base/fault.ts'

/**
 * Other regions, as far as this one was told of them: calls to their public API with the credentials of an account of theirs. A call is for one
 * project there, and is refused when the account may not work in it.
 */
export interface RegionClient {
  /** Names of the regions that backups can be copied to, in the order of the configuration. */
  readonly names: readonly string[]
  /**
   * Sends one request and returns its checked answer. Faults: REGION_UNKNOWN, REGION_UNREACHABLE (worth repeating), REGION_DENIED, REGION_REFUSED,
   * REGION_CREDENTIALS.
   */
  call<Answer extends TSchema>(request: RegionRequest<Answer>): Promise<Static<Answer>>
  /**
   * Whether backups of a project of this region may go to that project there. The account may work in projects of many tenants, and a tenant here
   * has named one: the list beside the credentials says who may send where; without one, everybody may, to each project that the account
   * may work in. Faults: REGION_UNKNOWN, REGION_CREDENTIALS.
   */
  readonly mayCopy: (region: string, source: string, destination: string) => Promise<boolean>
  close(): Promise<void>
}

export interface RegionRequest<Answer extends TSchema> {
  readonly region: string
  readonly project: string
  readonly method: 'POST' | 'PUT'
  readonly path: string
  readonly body: unknown
  readonly answer: Answer
  readonly signal?: AbortSignal
}

export const REGION_UNKNOWN = fault({
  code: 'REGION_UNKNOWN',
  retry: 'never',
  text: 'This region was not told how to reach the other one.',
  hint: 'Name it and a file with credentials for it in the option `regions` of the control plane.',
})
export const REGION_UNREACHABLE = fault({
  code: 'REGION_UNREACHABLE',
  retry: 'later',
  text: 'The control plane of the other region did not answer.',
  hint: 'It is tried again by itself. Check the network between the regions.',
})
export const REGION_DENIED = fault({
  code: 'REGION_DENIED',
  retry: 'never',
  text: 'The other region does not let this one work in that project.',
  hint: 'Check the id of the project, and that the account of the credentials has the role operator in it.',
})
export const REGION_REFUSED = fault({
  code: 'REGION_REFUSED',
  retry: 'never',
  text: 'The other region refused.',
  hint: 'What it said is in the message.',
})
export const REGION_CREDENTIALS = fault({
  code: 'REGION_CREDENTIALS',
  retry: 'later',
  text: 'The credentials for the other region cannot be read.',
  hint: 'Give a JSON file with url, domain, user and password, as `holdfast up` writes it.',
})

/** `NAME=PATH`, as the option `regions` has it. */
export interface RegionPlace {
  readonly name: string
  /** A file of credentials of that region, or one whose `regions` has them. */
  readonly file: string
}

const Credentials = Type.Object({
  region: Type.Optional(Type.String()),
  url: Type.String({ minLength: 1 }),
  domain: Type.String(),
  user: Type.String(),
  password: Type.String(),
  /** PEM text, or the path of it. */
  ca: Type.Optional(Type.String()),
  /** Ids of projects: whose backups (here) may go where (there). */
  copies: Type.Optional(
    Type.Array(Type.Object({ from: Type.String(), to: Type.Array(Type.String()) })),
  ),
  regions: Type.Optional(Type.Array(Type.Unknown())),
})
const credentials = Compile(Credentials)

const ANSWER_MS = 30_000
/** A token is made anew after this time, whatever its own lifetime: shorter than the shortest of those. */
const TOKEN_MS = 45_000

export function createRegionClient(
  places: readonly RegionPlace[],
  nowMs: () => number,
): RegionClient {
  const tokens = new Map<string, Session>()
  const dispatchers = new Map<string, Agent>()

  function dispatcher(name: string, ca: string | undefined): Agent {
    const key = `${name} ${ca ?? ''}`
    const known = dispatchers.get(key)
    if (known !== undefined) return known
    const made = new Agent({ connections: 8, connect: ca === undefined ? {} : { ca } })
    dispatchers.set(key, made)
    return made
  }

  const placeOf = (region: string, doing: string): RegionPlace => {
    const place = places.find(({ name }) => name === region)
    if (place === undefined) throw new Fault(REGION_UNKNOWN, doing)
    return place
  }

  async function login(place: RegionPlace, project: string, signal: AbortSignal): Promise<Session> {
    const { url, domain, user, password, ca } = await credentialsOf(place)
    const via = dispatcher(place.name, ca === undefined ? undefined : await pemOf(ca))
    const identity = {
      methods: ['password'],
      password: { user: { name: user, password, domain: { name: domain } } },
    }
    const body = { auth: { identity, scope: { project: { id: project } } } }
    const reply = await exchange(place, `${url}/v3/auth/tokens`, 'POST', body, {}, via, signal)
    const doing = `logging in to ${place.name} for project ${project}`
    const token = reply.headers['x-subject-token']
    if (reply.status !== 201 || typeof token !== 'string') throw refusalOf(reply, doing)
    const made = { token, url, untilMs: nowMs() + TOKEN_MS, via }
    tokens.set(`${place.name} ${project}`, made)
    return made
  }

  return {
    names: places.map(({ name }) => name),
    async call({ region, project, method, path, body, answer, signal }) {
      const doing = `${method} ${path} in ${region}`
      const place = placeOf(region, doing)
      const key = `${region} ${project}`
      const limit = AbortSignal.timeout(ANSWER_MS)
      const until = signal === undefined ? limit : AbortSignal.any([signal, limit])
      try {
        const send = ({ token, url, via }: Session) =>
          exchange(place, `${url}${path}`, method, body, { 'x-auth-token': token }, via, until)
        const known = tokens.get(key)
        const old = known !== undefined && known.untilMs > nowMs() ? known : undefined
        let reply = await send(old ?? (await login(place, project, until)))
        if (old !== undefined && reply.status === 401) {
          // It was taken back, or forgotten, before its time.
          reply = await send(await login(place, project, until))
        }
        if (reply.status === 401 || reply.status === 403) tokens.delete(key)
        if (reply.status >= 300 || !Compile<TSchema>(answer).Check(reply.body)) {
          throw refusalOf(reply, doing)
        }
        return reply.body as Static<typeof answer>
      } catch (error) {
        signal?.throwIfAborted()
        throw error
      }
    },
    async mayCopy(region, source, destination) {
      const place = placeOf(region, `looking for the projects of ${region} that may be copied to`)
      const { copies } = await credentialsOf(place)
      if (copies === undefined) return true
      return copies.some(({ from, to }) => from === source && to.includes(destination))
    },
    async close() {
      await Promise.all([...dispatchers.values()].map((one) => one.destroy()))
    },
  }
}

interface Session {
  readonly token: string
  readonly url: string
  readonly untilMs: number
  readonly via: Agent
}

interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: unknown
}

/** What cannot be carried out now may be carried out later; only a word about rights is one. */
function refusalOf({ status, body }: Reply, doing: string): Fault {
  if (status >= 500 || [408, 425, 429].includes(status)) {
    return new Fault(REGION_UNREACHABLE, `${doing}: status ${status}`)
  }
  if (status === 401 || status === 403) return new Fault(REGION_DENIED, doing)
  return new Fault(
    REGION_REFUSED,
    `${doing}: status ${status}, ${JSON.stringify(body)?.slice(0, 500)}`,
  )
}

async function exchange(
  { name }: RegionPlace,
  url: string,
  method: 'POST' | 'PUT',
  body: unknown,
  headers: Readonly<Record<string, string>>,
  dispatcher: Agent,
  signal: AbortSignal,
): Promise<Reply> {
  try {
    const reply = await send(url, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
      dispatcher,
      signal,
    })
    const text = await reply.body.text()
    return { status: reply.statusCode, headers: reply.headers, body: parse(text) }
  } catch (error) {
    throw new Fault(REGION_UNREACHABLE, `calling region ${name}`, {}, error)
  }
}

/** Read anew each time: addresses and passwords change while the control plane runs. */
async function credentialsOf({ name, file }: RegionPlace): Promise<Static<typeof Credentials>> {
  const doing = `reading the credentials of region ${name} from ${file}`
  let content: unknown
  try {
    content = parse(await readFile(file, 'utf8'))
  } catch (error) {
    throw new Fault(REGION_CREDENTIALS, doing, {}, error)
  }
  if (!credentials.Check(content)) throw new Fault(REGION_CREDENTIALS, doing)
  if (content.region === undefined || content.region === name) return content
  const other = content.regions?.find((one) => credentials.Check(one) && one.region === name)
  if (!credentials.Check(other)) throw new Fault(REGION_CREDENTIALS, doing)
  return other
}

const pemOf = async (ca: string): Promise<string> =>
  ca.includes('-----BEGIN') ? ca : await readFile(ca, 'utf8')

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
