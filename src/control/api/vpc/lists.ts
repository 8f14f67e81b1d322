import { pageOf, type Query } from '../http/page.ts'
import { refuse } from './errors.ts'

/** The page that was asked for; everything without `limit`. */
export function pageRows<Row extends { readonly id: string }>(
  rows: readonly Row[],
  query: unknown,
): readonly Row[] {
  const found = pageOf(rows, query as Query)
  if (found === null) throw refuse('VPC.0101', 'limit: a whole number from 0 to 2000.')
  return found.page
}
