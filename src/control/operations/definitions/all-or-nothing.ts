import type { Transaction } from '#control/store/store.ts'
import { type Outcome, type RequestServices, refused } from './requests.ts'

/** A refusal takes back what the transaction has done so far. */
export async function allOrNothing<Accepted, Refusal>(
  { store }: RequestServices,
  act: (tx: Transaction) => Promise<Outcome<Accepted, Refusal>>,
): Promise<Outcome<Accepted, Refusal>> {
  try {
    return await store.write(async (tx) => {
      const outcome = await act(tx)
      if (!outcome.ok) throw new TakenBack(outcome.refusal)
      return outcome
    })
  } catch (error) {
    if (error instanceof TakenBack) return refused(error.refusal as Refusal)
    throw error
  }
}

class TakenBack extends Error {
  readonly refusal: unknown
  constructor(refusal: unknown) {
    super('refused')
    this.refusal = refusal
  }
}
