// SPDX-License-Identifier: Apache-2.0

import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { makeNetns, netnsPath } from '#host'
import { installPlugins, startAgent } from './agents.ts'
import { type DemoCloud, openDemoCloud } from './clouds.ts'
import { compare, findGoPlugins } from './comparison.ts'
import { conflist, writeConflist } from './configuration.ts'
import { countReserve, heldAddresses } from './journals.ts'
import { journalLeftovers, type Kernels, kernelLeftovers, neutronLeftovers, readKernels } from './leftovers.ts'
import { type Attached, attach, detach } from './pods.ts'
import { type Party, type Path, tryPath } from './probes.ts'
import type { Report } from './report.ts'
import { startSimulated } from './simulated.ts'
import type { Place, Pod, State } from './state.ts'
import { type Station, startStation } from './station.ts'
import { detachAll, markOf, removeAll, Steps, stopAgents } from './teardown.ts'
import { findTopology, type Machine, type Topology, type TopologyOptions } from './topology.ts'

const RESERVE_MS = 30_000
/** The reserve has four addresses, and one is a pod's already. */
const FURTHER_ROUNDS = 3
const CLOUD_MS = 60_000
/** How long a network that has just learned of an address may lose packets. */
const NETWORK_MS = 5_000
const FLOATING_MS = 30_000

export type Stage = {
  readonly place: Place
  readonly state: State
  readonly report: Report
  readonly say: (text: string) => void
  /** The user wants it to end. */
  readonly signal: AbortSignal
}

/** What stands once the machines are found; ended when the stack is. */
export type Scene = {
  readonly cloud: DemoCloud
  readonly topology: Topology
  readonly before: Kernels
  during: Kernels
  /** Everything that the agents ever took from Neutron. */
  readonly addresses: Set<string>
}

/** Finds the machines of the cloud; the simulated one is started first. */
export async function setScene(
  stage: Stage,
  options: TopologyOptions | undefined,
  owned: AsyncDisposableStack,
): Promise<Scene> {
  const { place, state, report, say, signal } = stage
  const where = options ?? (await startSimulated(stage))
  signal.throwIfAborted()
  const cloud = owned.use(await openDemoCloud(state))
  say(`looking for two servers in ${cloud.title}`)
  const topology = await findTopology(cloud.session, where, owned)
  report.cloud = cloud.title
  report.network = `${topology.network.name} ${topology.network.cidr}`
  state.machines = topology.machines.map(({ name, netns }) => ({ name, netns }))
  place.save(state)
  const before = await readKernels(topology.machines)
  return { cloud, topology, before, during: before, addresses: new Set() }
}

/** Attaches pods and sends packets. */
export async function perform(stage: Stage, scene: Scene, owned: AsyncDisposableStack): Promise<void> {
  const { place, report, say, signal } = stage
  const { topology, cloud } = scene
  say(`starting an agent on ${topology.machines.map(({ name }) => name).join(' and ')}`)
  await startAgents(stage, scene)
  writeConflist(place, conflist(topology.network.id, cloud.access))
  const pods = makePods(stage, topology)
  const [first, second, third, fourth] = pods
  say(`attaching ${first.name} and ${third.name}: the first ones wait for Neutron`)
  await attachAll(stage, scene, [first, third], { fromReserve: false })
  await compareTimes(stage, scene)
  const fromReserve = await waitForReserve(stage, topology.machines)
  say(`attaching ${second.name} and ${fourth.name}`)
  await attachAll(stage, scene, [second, fourth], { fromReserve })
  report.attached.sort((a, b) => a.pod.name.localeCompare(b.pod.name))
  await attachFurther(stage, scene)
  scene.during = await readKernels(topology.machines)
  signal.throwIfAborted()
  say('sending packets')
  await sendPackets(stage, scene, owned)
}

async function startAgents(stage: Stage, { topology, cloud }: Scene): Promise<void> {
  const { place, state, signal } = stage
  const agents = topology.machines.map(machine => startAgent(place, machine, cloud.env))
  state.processes.push(...agents.map(({ process }) => process))
  place.save(state)
  await settleAll([
    ...topology.machines.map(({ name }) => installPlugins(place, name)),
    ...agents.map(({ ready }) => ready(signal)),
  ])
}

/** Two namespaces per machine, in the order of the machines. */
function makePods({ place, state }: Stage, { machines }: Topology): readonly [Pod, Pod, Pod, Pod] {
  const make = (number: number, machine: Machine): Pod => {
    const name = `${place.name}-pod-${number}`
    state.namespaces.push(name)
    place.save(state)
    makeNetns(name)
    return { name: `pod-${number}`, netns: netnsPath(name), machine: machine.name }
  }
  const [one, two] = machines
  return [make(1, one), make(2, one), make(3, two), make(4, two)]
}

async function attachAll(
  { place, state, report, signal }: Stage,
  scene: Scene,
  pods: readonly Pod[],
  { fromReserve }: { fromReserve: boolean },
): Promise<void> {
  const attachOne = async (pod: Pod): Promise<void> => {
    signal.throwIfAborted()
    state.pods.push(pod)
    place.save(state)
    const { station } = scene.topology.machines.find(({ name }) => name === pod.machine)!
    report.attached.push({ ...(await attach(place, pod, station)), fromReserve })
  }
  // From the reserve one after the other, so that each has the machine to itself while it is timed.
  if (fromReserve) for (const pod of pods) await attachOne(pod)
  else await settleAll(pods.map(attachOne))
  for (const { name } of scene.topology.machines)
    for (const address of heldAddresses(place, name)) scene.addresses.add(address)
}

/** A few more ADDs from the reserve, each detached again: one call alone says little about time. */
async function attachFurther(stage: Stage, { topology }: Scene): Promise<void> {
  const { place, state, report, signal } = stage
  for (const { name: machine, station } of topology.machines) {
    const name = `${place.name}-again-${machine}`
    const pod: Pod = { name: `again-${machine}`, netns: netnsPath(name), machine }
    state.namespaces.push(name)
    state.pods.push(pod)
    place.save(state)
    makeNetns(name)
    for (let round = 0; round < FURTHER_ROUNDS; round++) {
      signal.throwIfAborted()
      report.furtherMs.push((await attach(place, pod, station)).ms)
      await detach(place, pod, signal)
    }
  }
}

/** Waits for all of them, then throws the first error: nothing goes on behind the back of the cleaning up. */
async function settleAll(works: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(works)).find(({ status }) => status === 'rejected')
  if (failed !== undefined) throw (failed as PromiseRejectedResult).reason
}

/** The same work with `host-local`, beside the Go plugins where they are at hand. */
async function compareTimes({ place, state, report, say, signal }: Stage, { topology }: Scene): Promise<void> {
  const goPlugins = findGoPlugins()
  say(goPlugins === undefined ? 'timing ADD with host-local' : 'timing ADD with host-local, beside Go ptp')
  const names = { node: `${place.name}-go-node`, pod: `${place.name}-compared` }
  state.namespaces.push(names.node, names.pod)
  place.save(state)
  makeNetns(names.node)
  makeNetns(names.pod)
  report.comparison = await compare(place, topology.machines, goPlugins, names, signal)
}

/** Until each agent has made addresses ahead of need. @returns false where that takes too long: the next pods wait, too */
async function waitForReserve({ place, signal }: Stage, machines: readonly Machine[]): Promise<boolean> {
  for (const end = performance.now() + RESERVE_MS; performance.now() < end; await sleep(50)) {
    signal.throwIfAborted()
    if (machines.every(({ name }) => countReserve(place, name) > 0)) return true
  }
  return false
}

async function sendPackets(stage: Stage, scene: Scene, owned: AsyncDisposableStack): Promise<void> {
  const { report, signal } = stage
  const { topology } = scene
  const pods = new Map(
    report.attached.map(attached => [
      attached.pod.name,
      partyOf(attached, owned.use(startStation(attached.pod.netns))),
    ]),
  )
  const machines = topology.machines.map(({ name, address, station }): Party => ({ name, address, station }))
  const outside: Party = { name: 'outside', address: topology.outside.address, station: topology.outside.station }
  const parties = [...pods.values(), ...machines, outside]
  await Promise.all(parties.map(({ station, address }) => station.do('echo', { address })))
  const names = new Map([
    ...topology.router.addresses.map(address => [address, topology.router.name] as const),
    ...parties.map(({ address, name }) => [address, name] as const),
  ])
  const nameOf = (address: string) => names.get(address) ?? address
  for (const path of inside(pods, machines, outside, topology))
    report.passages.push(await tryPath(path, { withinMs: NETWORK_MS, nameOf, signal }))

  const target = report.attached[0]!
  stage.say(`pointing a floating IP of ${topology.externalNetwork.name} at ${target.pod.name}`)
  const floating = await makeFloatingIp(stage, scene, target)
  const to = pods.get(target.pod.name)!
  const path: Path = {
    what: `outside to ${floating}`,
    from: outside,
    to,
    via: floating,
    face: outside.address,
    atOnce: false,
  }
  report.passages.push(await tryPath(path, { withinMs: FLOATING_MS, nameOf, signal }))
}

const partyOf = ({ pod, address }: Attached, station: Station): Party => ({ name: pod.name, address, station })

/** Every way that needs no floating IP. */
function inside(
  pods: ReadonlyMap<string, Party>,
  machines: readonly Party[],
  outside: Party,
  { outsideFace }: Topology,
): Path[] {
  const [one, two, three] = ['pod-1', 'pod-2', 'pod-3'].map(name => pods.get(name)!) as [Party, Party, Party]
  const [near, far] = machines as [Party, Party]
  const plain = (what: string, from: Party, to: Party, atOnce: boolean): Path => ({
    what,
    from,
    to,
    face: from.address,
    atOnce,
  })
  return [
    plain('pod to pod, one VM', one, two, true),
    plain('pod to pod, across VMs', one, three, false),
    plain('pod to pod, and back', three, one, false),
    plain('pod to its VM', one, near, true),
    plain('pod to another VM', one, far, false),
    plain('VM to its pod', near, one, true),
    plain('VM to a pod of another', far, one, false),
    { what: 'pod to outside', from: one, to: outside, face: outsideFace ?? one.address, atOnce: false },
    { what: 'pod to outside', from: three, to: outside, face: outsideFace ?? three.address, atOnce: false },
  ]
}

async function makeFloatingIp({ place, state }: Stage, { cloud, topology }: Scene, target: Attached): Promise<string> {
  const machine = topology.machines.find(({ name }) => name === target.pod.machine)!
  const { floatingIps } = cloud.session.neutron
  const description = markOf(place)
  const limits = { deadline: deadlineIn(CLOUD_MS) }
  const made = await floatingIps.create(
    {
      floating_network_id: topology.externalNetwork.id,
      port_id: machine.portId,
      fixed_ip_address: target.address,
      description,
    },
    { ...limits, find: async within => (await floatingIps.list({ description }, within))[0] },
  )
  state.floatingIps.push(made.id)
  place.save(state)
  return made.floating_ip_address
}

/** Deletes everything, and looks whether anything is left. */
export async function finish(stage: Stage, scene: Scene | undefined): Promise<void> {
  const { place, state, report, say } = stage
  const steps = new Steps()
  if (scene !== undefined) {
    say('deleting the pods')
    await steps.attempt('clean up', () => finishScene(stage, scene, steps))
  }
  await removeAll(place, state, steps)
  report.leftovers.push(...steps.faults)
}

async function finishScene(stage: Stage, scene: Scene, steps: Steps): Promise<void> {
  const { place, state, report, say } = stage
  const { cloud, topology, addresses } = scene
  const { machines } = topology
  const hold = () => {
    for (const { name } of machines) for (const address of heldAddresses(place, name)) addresses.add(address)
  }
  await detachAll(place, state, cloud, steps)
  const after = await readKernels(machines)
  say('stopping the agents, and giving their reserve back to Neutron')
  hold()
  await stopAgents(place, state, cloud, steps)
  hold()
  say('looking for what is left')
  const kernels = { before: scene.before, during: scene.during, after }
  report.leftovers.push(
    ...kernelLeftovers(state, kernels, [...addresses]),
    ...journalLeftovers(place, machines),
    ...(await neutronLeftovers(cloud, machines, { addresses: [...addresses], floatingIps: state.floatingIps })),
  )
}
