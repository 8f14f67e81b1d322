import Type, { type TSchema } from 'typebox'
import { ErrorBody } from './errors.ts'

/** Schema of a route: what the document says about it, and what its input has to look like. */
export function describe<
  Parts extends {
    readonly body?: TSchema
    readonly querystring?: TSchema
    readonly params?: TSchema
  },
>(
  summary: string,
  tag: string,
  answer: TSchema,
  parts: Parts,
  status: 200 | 201 | 202 = 200,
): Parts & {
  readonly summary: string
  readonly tags: readonly string[]
  readonly response: Record<string, TSchema>
} {
  return { ...parts, summary, tags: [tag], response: { [status]: answer, default: ErrorBody } }
}

export const ById = Type.Object({ id: Type.String({ maxLength: 64 }) })

/** A point in time: ISO 8601, UTC, milliseconds. */
export const Time = Type.String({ format: 'date-time' })
export const timeOf = (ms: number): string => new Date(ms).toISOString()

export const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

/** Milliseconds since something was heard; null: never. */
export const Age = nullable(Type.Number({ description: 'Milliseconds since it was heard.' }))

/** Whole milliseconds; null: never heard. */
export const rounded = (ms: number | null | undefined): number | null =>
  ms === null || ms === undefined ? null : Math.round(ms)
