// SPDX-License-Identifier: Apache-2.0

// What follows from a port as Neutron shows it and from what the journal knows of it. Pure: facts in, decisions out.

/** Whose an address is: the same three that CNI names an attachment by. */
export type Owner = { readonly network: string; readonly containerId: string; readonly ifName: string }

/**
 * `foreign`: there before us, never touched. `free`: ours, nobody's. `assigned`: an attachment's. `releasing`: nobody's any
 * more, on its way to the reserve or off the port. `quarantined`: on the port, and nobody can say whose.
 */
export type AddressState = 'foreign' | 'free' | 'assigned' | 'releasing' | 'quarantined'

/** One address of a port as the journal knows it. */
export type PortAddress = {
  readonly portId: string
  readonly address: string
  readonly subnetId: string
  readonly state: AddressState
  readonly owner: Owner | undefined
  /** The boot in which it was assigned: an attachment does not outlive it. */
  readonly bootId: string
  /** The floating IP that led to it when the port was last looked at. */
  readonly floatingIp: string | undefined
  /** From this moment (ms since 1970) it works on the wire, and its cool-down is over. */
  readonly usableMs: number
  /** New on the port: it may work on the wire sooner than `usableMs`. */
  readonly settling: boolean
  readonly changedMs: number
}

/** A write that was about to be sent: what the port had, and what was asked for. */
export type PortIntent = {
  readonly id: number
  readonly portId: string
  readonly before: readonly string[]
  /** New addresses by subnet. */
  readonly adding: Readonly<Record<string, number>>
  readonly removing: readonly string[]
  readonly createdMs: number
}

/** An attachment that waits for an address of a subnet. */
export type Want = {
  readonly id: number
  readonly portId: string
  readonly subnetId: string
  readonly owner: Owner
  /** When its caller gives up (ms since 1970). */
  readonly expiresMs: number
}

/** An address as Neutron shows it. */
export type Shown = { readonly subnet_id: string; readonly ip_address: string }

/** As much of an address as a comparison needs. */
export type Known = Pick<PortAddress, 'portId' | 'address' | 'state'>

/** A request that has not shown its effect by then was never carried out: no proxy holds one that long. */
export const INTENT_MS = 180_000
/** Unanswered writes at a time; with more, what appears cannot be attributed any more. */
const INTENTS_MAX = 8

export type Comparison = {
  /** Addresses that a write of ours made whose answer was not seen. */
  readonly attributed: readonly Shown[]
  /** Addresses that appeared and cannot be told to be ours. */
  readonly strange: readonly Shown[]
  /** Addresses that are gone from the port and matter to nobody. */
  readonly vanished: readonly Known[]
  /** Addresses that attachments hold and the port does not have. */
  readonly lost: readonly Known[]
  /** Intents whose fate is known. */
  readonly settled: readonly number[]
}

/**
 * Compares a port with the journal. `inUse` says that something on this node has the address: then it is nobody's to hand
 * out, even where an intent explains it.
 */
export function comparePort(
  shown: readonly Shown[],
  known: readonly Known[],
  intents: readonly PortIntent[],
  { nowMs, inUse = () => false }: { nowMs: number; inUse?: ((address: string) => boolean) | undefined },
): Comparison {
  const present = new Set(shown.map(each => each.ip_address))
  const recorded = new Set(known.map(each => each.address))
  const unknown = shown.filter(each => !recorded.has(each.ip_address))
  const gone = known.filter(each => !present.has(each.address))
  const explaining = explain(unknown, intents)
  const explained = explaining !== undefined
  return {
    attributed: unknown.filter(each => explained && !inUse(each.ip_address)),
    strange: unknown.filter(each => !explained || inUse(each.ip_address)),
    vanished: gone.filter(each => each.state !== 'assigned'),
    lost: gone.filter(each => each.state === 'assigned'),
    settled: intents
      .filter(
        intent =>
          explaining?.includes(intent) ||
          Object.keys(intent.adding).length === 0 ||
          nowMs - intent.createdMs > INTENT_MS,
      )
      .map(intent => intent.id),
  }
}

/**
 * The intents that together made exactly these addresses, undefined if none did. Exactly, because a write is all or
 * nothing: a number that no set of intents adds up to means that somebody else wrote as well.
 */
function explain(unknown: readonly Shown[], intents: readonly PortIntent[]): PortIntent[] | undefined {
  if (unknown.length === 0) return []
  const adding = intents.filter(intent => Object.keys(intent.adding).length > 0)
  // What was there before a write is not of that write.
  const fits = (intent: PortIntent) => !unknown.some(each => intent.before.includes(each.ip_address))
  const candidates = adding.filter(fits)
  if (candidates.length > INTENTS_MAX) return undefined
  const wanted = countBySubnet(unknown)
  for (let subset = 1; subset < 1 << candidates.length; subset++) {
    const chosen = candidates.filter((_, index) => subset & (1 << index))
    if (sameCounts(sumOf(chosen), wanted)) return chosen
  }
  return undefined
}

/** How many addresses each subnet has in a list. */
export function countBySubnet(addresses: readonly Shown[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { subnet_id } of addresses) counts[subnet_id] = (counts[subnet_id] ?? 0) + 1
  return counts
}

function sumOf(intents: readonly PortIntent[]): Record<string, number> {
  const sum: Record<string, number> = {}
  for (const { adding } of intents)
    for (const [subnet, count] of Object.entries(adding)) sum[subnet] = (sum[subnet] ?? 0) + count
  return sum
}

/** True if two counts by subnet are the same. */
export function sameCounts(a: Readonly<Record<string, number>>, b: Readonly<Record<string, number>>): boolean {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].every(subnet => (a[subnet] ?? 0) === (b[subnet] ?? 0))
}

/** The new addresses of a write, by difference: what the answer has and the list before had not. */
export function difference(before: readonly Shown[], after: readonly Shown[]): Shown[] {
  const old = new Set(before.map(each => each.ip_address))
  return after.filter(each => !old.has(each.ip_address))
}

export type PlanFacts = {
  /** The addresses that no attachment holds. */
  readonly known: readonly PortAddress[]
  readonly wants: readonly Want[]
  /** Subnets in which a reserve is kept. */
  readonly reserveSubnets: readonly string[]
  /** Addresses kept free in each of them. */
  readonly reserve: number
  readonly coolDownMs: number
  /** An address that is usable this soon is as good as a new one. */
  readonly soonMs: number
  /** Subnets that have no further address at the moment. */
  readonly exhausted: ReadonlySet<string>
  /** False for a moment after a refill failed for want of addresses. */
  readonly refill: boolean
  /** Attachments served by one write at most. */
  readonly batchMax: number
  readonly nowMs: number
}

export type Plan = {
  readonly assign: readonly { readonly want: Want; readonly address: PortAddress }[]
  /** Released addresses that join the reserve, with the end of their cool-down. */
  readonly keep: readonly { readonly address: PortAddress; readonly usableMs: number }[]
  readonly remove: readonly PortAddress[]
  /** New addresses by subnet for those that wait, and for the reserve. */
  readonly serve: Readonly<Record<string, number>>
  readonly refill: Readonly<Record<string, number>>
}

/** What to do with a port: whom to serve, what to keep, what to add and to remove. */
export function planPort(facts: PlanFacts): Plan {
  const plan = { assign: [], keep: [], remove: [], serve: {}, refill: {} } as {
    -readonly [K in keyof Plan]: Plan[K] extends readonly (infer T)[] ? T[] : Record<string, number>
  }
  const subnets = new Set([
    ...facts.known.filter(each => each.state === 'free' || each.state === 'releasing').map(each => each.subnetId),
    ...facts.wants.map(each => each.subnetId),
    ...facts.reserveSubnets,
  ])
  for (const subnet of subnets) planSubnet(subnet, facts, plan)
  return plan
}

function planSubnet(
  subnet: string,
  facts: PlanFacts,
  plan: {
    assign: { want: Want; address: PortAddress }[]
    keep: { address: PortAddress; usableMs: number }[]
    remove: PortAddress[]
    serve: Record<string, number>
    refill: Record<string, number>
  },
): void {
  const here = facts.known.filter(each => each.subnetId === subnet)
  const isFull = facts.exhausted.has(subnet)
  const reserve = facts.reserveSubnets.includes(subnet) ? facts.reserve : 0
  // An address with a binding is never handed out: what reaches it is meant for somebody else.
  const fit = here
    .filter(each => each.state === 'free' && each.floatingIp === undefined)
    .sort((a, b) => a.usableMs - b.usableMs)
  const waiting = facts.wants.filter(each => each.subnetId === subnet)
  while (waiting[0] !== undefined && fit[0] !== undefined) {
    if (fit[0].usableMs > facts.nowMs + facts.soonMs && !isFull) break
    plan.assign.push({ want: waiting.shift()!, address: fit.shift()! })
  }
  for (const address of here.filter(each => each.state === 'releasing' && each.floatingIp === undefined)) {
    const kept = { address, usableMs: address.changedMs + facts.coolDownMs }
    if (isFull && waiting[0] !== undefined) {
      // There is nothing else: better after the rest of its cool-down than never.
      plan.keep.push(kept)
      plan.assign.push({ want: waiting.shift()!, address })
    } else if (fit.length < reserve) {
      plan.keep.push(kept)
      fit.push(address)
    } else plan.remove.push(address)
  }
  if (isFull) return
  // The first to be usable stay.
  plan.remove.push(...fit.slice(reserve))
  const serve = Math.min(waiting.length, facts.batchMax)
  if (serve > 0) plan.serve[subnet] = serve
  const short = reserve - fit.length
  if (short > 0 && facts.refill) plan.refill[subnet] = short
}
