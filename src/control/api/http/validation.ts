import Type, { type TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Value } from 'typebox/value'
import { assert } from '#base/assert.ts'
import type { InputIssue } from './dialect.ts'

/* Input against the schemas of its route. Bodies are taken as they are: a number where text belongs is refused.
 * Path and query arrive as text, so there `?limit=5` becomes the number 5 first. Unknown members pass. */

/** A member that clients leave out or send as null. */
export const optional = <T extends TSchema>(schema: T) =>
  Type.Optional(Type.Union([schema, Type.Null()]))

/** Thrown by Fastify when a schema refused; caught by the error handler. */
export class InvalidInput extends Error {
  override readonly name = 'InvalidInput'
  readonly issue: InputIssue

  constructor(issue: InputIssue) {
    super(issue.message)
    this.issue = issue
  }
}

/** Fastify's `validatorCompiler`. */
export function compileValidator(route: {
  readonly schema: unknown
  readonly httpPart?: string
}): (value: unknown) => { value: unknown } | { error: InvalidInput } {
  const schema = route.schema as TSchema
  const part = partOf(route.httpPart)
  const check = Compile(schema)
  return (given) => {
    const value = part === 'body' ? given : Value.Convert(schema, given)
    if (check.Check(value)) return { value }
    return { error: new InvalidInput(firstIssue(part, check.Errors(value))) }
  }
}

function partOf(httpPart: string | undefined): InputIssue['part'] {
  assert(
    httpPart === 'body' ||
      httpPart === 'querystring' ||
      httpPart === 'params' ||
      httpPart === 'headers',
    'a schema belongs to a part of the request',
  )
  return httpPart
}

interface ValidationError {
  readonly keyword: string
  readonly instancePath: string
  readonly params: object
  readonly message: string
}

/**
 * A union reports an error for each of its branches; the deepest place is the one the caller meant. A missing member
 * counts as an issue of that member.
 */
function firstIssue(part: InputIssue['part'], errors: readonly ValidationError[]): InputIssue {
  const issues = errors
    .filter(({ keyword }) => keyword !== 'anyOf')
    .map((error) => ({ error, path: error.instancePath + missingMember(error) }))
  const depth = (path: string) => path.split('/').length
  const best = issues.reduce<(typeof issues)[number] | undefined>(
    (found, issue) =>
      found === undefined || depth(issue.path) > depth(found.path) ? issue : found,
    undefined,
  )
  const where = best?.path ?? ''
  const name =
    where === '' ? `The ${PART_NAMES[part]}` : `The member ${where.slice(1).replaceAll('/', '.')}`
  const keyword = best?.error.keyword ?? 'anyOf'
  const wrong =
    keyword === 'required' ? 'must be given' : (best?.error.message ?? 'is not acceptable')
  return { part, path: where, keyword, message: `${name} ${wrong}.` }
}

const PART_NAMES = {
  body: 'body',
  querystring: 'query',
  params: 'path',
  headers: 'header block',
} as const

function missingMember({ keyword, params }: ValidationError): string {
  if (keyword !== 'required') return ''
  const [first] = (params as { requiredProperties?: readonly string[] }).requiredProperties ?? []
  return first === undefined ? '' : `/${first}`
}
