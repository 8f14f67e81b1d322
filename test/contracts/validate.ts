/** Answers of the public API against the OpenAPI contracts beside this file. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { parse } from 'yaml'

export type ContractName = 'iam' | 'sdrs' | 'evs' | 'compute' | 'csbs'

/** One answer, from whichever client. `path` may carry a query and a trailing slash. */
export interface Answer {
  readonly method: string
  readonly path: string
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, unknown>>
  /** The text of the body; '' for none. */
  readonly text: string
}

interface Response {
  readonly content?: Readonly<Record<string, { readonly schema?: unknown }>>
  readonly headers?: Readonly<Record<string, { readonly required?: boolean }>>
}

interface Operation {
  readonly operationId: string
  readonly responses: Readonly<Record<string, Response | { readonly $ref: string }>>
}

interface OpenApi {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

interface Contract {
  readonly document: OpenApi
  readonly ajv: Ajv2020
  readonly compiled: Map<string, ValidateFunction>
}

const contracts = new Map<ContractName, Contract>()
/** Operations and statuses that were checked, for tests that ask what nobody exercised: `GET /v3 200`. */
export const exercised = new Map<ContractName, Set<string>>()

function load(name: ContractName): Contract {
  const known = contracts.get(name)
  if (known !== undefined) return known
  const file = join(import.meta.dirname, `${name}.openapi.yaml`)
  const document = parse(readFileSync(file, 'utf8')) as OpenApi
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateSchema: false })
  formats.default(ajv)
  ajv.addSchema(document, name)
  const contract: Contract = { document, ajv, compiled: new Map() }
  contracts.set(name, contract)
  return contract
}

/** Every operation of a contract with the statuses that it names. */
export function operationsOf(
  name: ContractName,
): { readonly method: string; readonly path: string; readonly statuses: readonly string[] }[] {
  return Object.entries(load(name).document.paths).flatMap(([path, operations]) =>
    Object.entries(operations)
      .filter(([, operation]) => typeof operation === 'object' && 'responses' in operation)
      .map(([method, { responses }]) => {
        return { method: method.toUpperCase(), path, statuses: Object.keys(responses) }
      }),
  )
}

/** Everything in `answer` that the contract does not allow; empty when it is right. */
export function violations(name: ContractName, answer: Answer): string[] {
  const contract = load(name)
  const path = answer.path.replace(/\?.*$/s, '').replace(/(?<=.)\/$/, '')
  const method = answer.method.toLowerCase()
  const template = templateOf(contract, method, path)
  if (template === undefined) return [`${answer.method} ${path} is not in the contract`]
  const operation = contract.document.paths[template]?.[method]
  assert.ok(operation !== undefined)

  const status = [String(answer.status), 'default'].find((key) => key in operation.responses)
  if (status === undefined) return [`${operation.operationId} never answers ${answer.status}`]
  const seen = exercised.get(name) ?? new Set()
  exercised.set(name, seen.add(`${answer.method} ${template} ${status}`))

  const pointer = ['#/paths', escape(template), method, 'responses', status].join('/')
  const { response, at } = follow(contract.document, operation.responses[status], pointer)
  const missing = Object.entries(response.headers ?? {})
    .filter(
      ([header, { required }]) => required === true && !(header.toLowerCase() in answer.headers),
    )
    .map(([header]) => `header ${header} is missing`)
  return [...missing, ...bodyViolations(name, contract, answer, response, at)]
}

/** Fails the test unless the answer is one that the contract allows. */
export function assertContract(name: ContractName, answer: Answer): void {
  const found = violations(name, answer)
  if (found.length === 0) return
  const shown = answer.text.length > 2_000 ? `${answer.text.slice(0, 2_000)}…` : answer.text
  assert.fail(
    `${name}: ${answer.method} ${answer.path} → ${answer.status}\n  ${found.join('\n  ')}\n${shown}`,
  )
}

/** The same for what Fastify's `inject` returned. */
export function assertInjected(
  name: ContractName,
  request: { readonly method?: string; readonly url: string },
  reply: {
    readonly statusCode: number
    readonly headers: Readonly<Record<string, unknown>>
    readonly body: string
  },
): void {
  const { method = 'GET', url: path } = request
  const { statusCode: status, headers, body: text } = reply
  assertContract(name, { method, path, status, headers, text })
}

function bodyViolations(
  name: ContractName,
  contract: Contract,
  answer: Answer,
  response: Response,
  at: string,
): string[] {
  const json = Object.keys(response.content ?? {}).find((type) => type.includes('json'))
  if (json === undefined || answer.method === 'HEAD') {
    return answer.text === '' ? [] : ['there is a body where none belongs']
  }
  const type = answer.headers['content-type']
  if (typeof type !== 'string' || !type.startsWith('application/json')) {
    return [`content-type is ${JSON.stringify(type)}`]
  }
  let body: unknown
  try {
    body = JSON.parse(answer.text)
  } catch {
    return ['the body is not JSON']
  }
  if (response.content?.[json]?.schema === undefined) return []
  const reference = `${name}${at}/content/${escape(json)}/schema`
  const check = contract.compiled.get(reference) ?? contract.ajv.compile({ $ref: reference })
  contract.compiled.set(reference, check)
  if (check(body) === true) return []
  return (check.errors ?? []).map(
    ({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
  )
}

/** The path template that matches; of several, the one with the most literal segments. */
function templateOf(contract: Contract, method: string, path: string): string | undefined {
  const segments = path.split('/')
  let best: { template: string; literals: number } | undefined
  for (const [template, operations] of Object.entries(contract.document.paths)) {
    if (!(method in operations)) continue
    const parts = template.split('/')
    const isParameter = (part: string) => part.startsWith('{')
    const fits =
      parts.length === segments.length &&
      parts.every((part, index) => isParameter(part) || part === segments[index])
    if (!fits) continue
    const literals = parts.filter((part) => !isParameter(part)).length
    if (literals > (best?.literals ?? -1)) best = { template, literals }
  }
  return best?.template
}

function follow(
  document: OpenApi,
  response: Operation['responses'][string] | undefined,
  pointer: string,
): { response: Response; at: string } {
  assert.ok(response !== undefined)
  if (!('$ref' in response)) return { response, at: pointer }
  const target = response.$ref
    .slice(2)
    .split('/')
    .reduce<unknown>((node, key) => (node as Record<string, unknown>)[unescape(key)], document)
  return { response: target as Response, at: response.$ref }
}

const escape = (part: string): string =>
  encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))

const unescape = (part: string): string => part.replaceAll('~1', '/').replaceAll('~0', '~')
