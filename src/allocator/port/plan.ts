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
  /** Those of them that were asked for by name. */
  readonly naming: readonly string[]
  readonly removing: readonly string[]
  readonly createdMs: number
}

/** One address to have: any of the first of these subnets that is not full, or this very one, which is in the only one. */
export type Wish = { readonly subnetIds: readonly string[]; readonly address?: string | undefined }

/** An attachment that waits for an address. */
export type Want = Wish & {
  readonly id: number
  readonly portId: string
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
  const { made, by } = explain(unknown, present, intents)
  const isOurs = ({ ip_address }: Shown) => made.has(ip_address) && !inUse(ip_address)
  return {
    attributed: unknown.filter(isOurs),
    strange: unknown.filter(each => !isOurs(each)),
    vanished: gone.filter(each => each.state !== 'assigned'),
    lost: gone.filter(each => each.state === 'assigned'),
    settled: intents
      .filter(
        intent =>
          by.includes(intent) ||
          nowMs - intent.createdMs > INTENT_MS ||
          // A removal that has not shown its effect may still have it, on whoever has the address then.
          (Object.keys(intent.adding).length === 0 && !intent.removing.some(address => present.has(address))),
      )
      .map(intent => intent.id),
  }
}

/** Addresses that writes of ours made, and those writes. */
type Explanation = { readonly made: ReadonlySet<string>; readonly by: readonly PortIntent[] }

/**
 * What unanswered writes made of the addresses that nobody recorded. A write is all or nothing: once the port has all that
 * one named it was carried out, also where another named the same. What is left has to be exactly what some of the others
 * asked for by number: a number that no set of them adds up to means that somebody else wrote as well.
 */
function explain(unknown: readonly Shown[], present: ReadonlySet<string>, intents: readonly PortIntent[]): Explanation {
  const appeared = new Set(unknown.map(each => each.ip_address))
  // What was there before a write is not of that write, and what it named is there if it was carried out.
  const fitting = intents.filter(
    ({ before, naming, adding }) =>
      Object.keys(adding).length > 0 &&
      !before.some(each => appeared.has(each)) &&
      naming.every(each => present.has(each)),
  )
  const [named, counted] = [true, false].map(isNamed => fitting.filter(each => isNamed === isNamedWhole(each)))
  const certain = new Set(named!.flatMap(each => each.naming))
  const others = unknown.filter(each => !certain.has(each.ip_address))
  const chosen = countedFor(others, counted!)
  if (chosen === undefined) return { made: certain, by: named! }
  return { made: certain.union(appeared), by: [...named!, ...chosen] }
}

const isNamedWhole = ({ adding, naming }: PortIntent) =>
  naming.length === Object.values(adding).reduce((sum, each) => sum + each, 0)

/** The writes that together made exactly these addresses, undefined if none did. */
function countedFor(unknown: readonly Shown[], intents: readonly PortIntent[]): PortIntent[] | undefined {
  if (unknown.length === 0) return []
  const appeared = new Set(unknown.map(each => each.ip_address))
  const candidates = intents.filter(({ naming }) => naming.every(each => appeared.has(each)))
  if (candidates.length > INTENTS_MAX) return undefined
  const wanted = countBySubnet(unknown)
  for (let subset = 1; subset < 1 << candidates.length; subset++) {
    const chosen = candidates.filter((_, index) => subset & (1 << index))
    if (sameCounts(sumOf(chosen), wanted)) return chosen
  }
  return undefined
}

/** How many addresses each subnet has in a list. */
export function countBySubnet(addresses: readonly Pick<Shown, 'subnet_id'>[]): Record<string, number> {
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
  /** Addresses whose removal was asked for and never answered: the cloud may carry it out at any moment. */
  readonly leaving: ReadonlySet<string>
  /** Subnets in which a reserve is kept: for each entry in the first that is not full. */
  readonly reserveSubnets: readonly (readonly string[])[]
  /** Addresses kept free in each of them. */
  readonly reserve: number
  readonly coolDownMs: number
  /** An address that is usable this soon is as good as a new one. */
  readonly soonMs: number
  /** Subnets that have no further address: Neutron has just said so. */
  readonly exhausted: ReadonlySet<string>
  /** Subnets that had none a while ago: they are asked last. */
  readonly full: ReadonlySet<string>
  /** Wants that Neutron refused. */
  readonly refused: ReadonlySet<number>
  /** False for a moment after a refill failed for want of addresses. */
  readonly refill: boolean
  /** Attachments served by one write at most. */
  readonly batchMax: number
  /** Addresses that may still be added: the rest of the cap. */
  readonly room: number
  /** False while what is left over after a surge is kept: the next pods may come soon. */
  readonly shrink: boolean
  readonly nowMs: number
}

export type Plan = {
  readonly assign: readonly { readonly want: Want; readonly address: PortAddress }[]
  /** Released addresses that join the reserve, with the end of their cool-down. */
  readonly keep: readonly { readonly address: PortAddress; readonly usableMs: number }[]
  readonly remove: readonly PortAddress[]
  /** New addresses by name. They are written apart: one that cannot be had must not cost others theirs. */
  readonly name: readonly Want[]
  /** New addresses by subnet for those that wait, and for the reserve. */
  readonly serve: Readonly<Record<string, number>>
  readonly refill: Readonly<Record<string, number>>
  /** Free addresses beyond the reserve that are kept for the moment. */
  readonly surplus: readonly PortAddress[]
  /** Those who wait and whom the cap leaves without an address. */
  readonly capped: readonly Want[]
}

type Draft = {
  -readonly [K in keyof Plan]: Plan[K] extends readonly (infer T)[] ? T[] : Record<string, number>
} & { room: number }

/** What to do with a port: whom to serve, what to keep, what to add and to remove. */
export function planPort(facts: PlanFacts): Plan {
  const plan: Draft = {
    assign: [],
    keep: [],
    remove: [],
    name: [],
    serve: {},
    refill: {},
    surplus: [],
    capped: [],
    room: facts.room,
  }
  const waiting = facts.wants.filter(want => !facts.refused.has(want.id))
  const taken = serveNamed(waiting, facts, plan)
  const isLeaving = (each: PortAddress) => facts.leaving.has(each.address)
  plan.remove.push(...facts.known.filter(each => each.state === 'releasing' && isLeaving(each)))
  const loose = Map.groupBy(
    facts.known.filter(each => !taken.has(each.address) && each.floatingIp === undefined && !isLeaving(each)),
    each => each.subnetId,
  )
  const stocks = new Map([...loose].map(([subnet, addresses]) => [subnet, stockOf(addresses)]))
  for (const want of waiting) if (want.address === undefined) serveAny(want, stocks, facts, plan)
  for (const [subnet, count] of Object.entries(plan.serve)) plan.serve[subnet] = Math.min(count, facts.batchMax)
  planReserve(stocks, facts, plan)
  return plan
}

/** Those who name an address get it where the port has it, whatever its cool-down. @returns the addresses that are spoken for */
function serveNamed(waiting: readonly Want[], { known, leaving }: PlanFacts, plan: Draft): ReadonlySet<string> {
  const taken = new Set<string>()
  for (const want of waiting) {
    // The second who names it is told once the first has it.
    if (want.address === undefined || taken.has(want.address)) continue
    taken.add(want.address)
    const address = known.find(each => each.address === want.address)
    // An address with a binding is never handed out: what reaches it is meant for somebody else.
    if (address === undefined && plan.room === 0) plan.capped.push(want)
    else if (address === undefined) {
      plan.name.push(want)
      plan.room--
    } else if (address.floatingIp === undefined && !leaving.has(want.address)) plan.assign.push({ want, address })
  }
  return taken
}

/** The addresses of a subnet that can be handed out: the first to be usable first, and those just released. */
type Stock = { readonly free: PortAddress[]; readonly released: PortAddress[] }

const stockOf = (addresses: readonly PortAddress[]): Stock => ({
  free: addresses.filter(each => each.state === 'free').sort((a, b) => a.usableMs - b.usableMs),
  released: addresses.filter(each => each.state === 'releasing'),
})

/** The first subnet that is not known to be full, else the first that Neutron has not just refused, else none. */
const openOf = (subnets: readonly string[], { exhausted, full }: Pick<PlanFacts, 'exhausted' | 'full'>) =>
  subnets.find(each => !exhausted.has(each) && !full.has(each)) ?? subnets.find(each => !exhausted.has(each))

function serveAny(want: Want, stocks: ReadonlyMap<string, Stock>, facts: PlanFacts, plan: Draft): void {
  const open = plan.room > 0 ? openOf(want.subnetIds, facts) : undefined
  for (const subnet of want.subnetIds) {
    const free = stocks.get(subnet)?.free
    // Where nothing else is to be had: better after the rest of its cool-down than never.
    if (free?.[0] !== undefined && (open === undefined || free[0].usableMs <= facts.nowMs + facts.soonMs)) {
      plan.assign.push({ want, address: free.shift()! })
      return
    }
    if (subnet !== open) continue
    plan.serve[subnet] = (plan.serve[subnet] ?? 0) + 1
    plan.room--
    return
  }
  for (const subnet of want.subnetIds) {
    const address = stocks.get(subnet)?.released.shift()
    if (address === undefined) continue
    plan.keep.push({ address, usableMs: address.changedMs + facts.coolDownMs })
    plan.assign.push({ want, address })
    return
  }
  if (plan.room === 0) plan.capped.push(want)
}

/** What is left over fills the reserve, and goes where that is full. */
function planReserve(stocks: ReadonlyMap<string, Stock>, facts: PlanFacts, plan: Draft): void {
  const reserves = facts.reserveSubnets.map(subnets => ({ subnets, open: openOf(subnets, facts) }))
  const filled = new Set(reserves.map(({ open }) => open))
  // Before the one that is filled are full ones: what they still have is not let go.
  const kept = new Set(
    reserves.flatMap(({ open, subnets }) =>
      open === undefined ? subnets : subnets.slice(0, subnets.indexOf(open) + 1),
    ),
  )
  for (const subnet of new Set([...stocks.keys(), ...kept])) {
    const { free, released } = stocks.get(subnet) ?? { free: [], released: [] }
    const reserve = kept.has(subnet) ? facts.reserve : 0
    for (const address of released)
      if (free.length < reserve || !facts.shrink) {
        plan.keep.push({ address, usableMs: address.changedMs + facts.coolDownMs })
        free.push(address)
      } else plan.remove.push(address)
    if (facts.exhausted.has(subnet)) continue
    // The first to be usable stay.
    ;(facts.shrink ? plan.remove : plan.surplus).push(...free.slice(reserve))
    const short = Math.min(reserve - free.length, plan.room)
    if (short <= 0 || !facts.refill || !filled.has(subnet)) continue
    plan.refill[subnet] = short
    plan.room -= short
  }
}

/** When what is left over after a surge goes: at random, so that the nodes of a cluster do not all write at once. */
export const shrinkAfterMs = (coolDownMs: number, random: number): number => coolDownMs * (1 + random)
