// SPDX-License-Identifier: Apache-2.0

// demo: the product shown at work, from Neutron's address to the packet, on network namespaces as machines. It does what
// an operator and a container runtime do, by the commands and plugins that they use, and cleans up behind itself. It may
// look at every room below; nothing of the product may depend on it.

import { existsSync } from 'node:fs'
import { listNetns, netnsPath } from '#host'
import { LAUNCHER } from './children.ts'
import { openDemoCloud } from './clouds.ts'
import { finish, perform, type Scene, type Stage, setScene } from './demo.ts'
import { byHand } from './pods.ts'
import { closing, isAsPromised, passageTable, podTable, type Report, reportJson } from './report.ts'
import { type Place, type State, takePlace } from './state.ts'
import { detachAll, removeAll, Steps, stopAgents } from './teardown.ts'

export type DemoOptions = {
  /** Names the directory below /run and the namespaces. */
  readonly name: string
  /** A cloud of clouds.yaml whose servers are namespaces of this machine; undefined: the simulated one. */
  readonly cloud: string | undefined
  /** The namespace of server NAME of that cloud is this and NAME. */
  readonly vmPrefix: string
  /** The namespace of the host outside, beside that cloud. */
  readonly outside: string
  /** Leave it standing. */
  readonly keep: boolean
  readonly json: boolean
}

/** Where a demo speaks: results, and how it gets on. */
export type DemoOutput = { readonly result: (text: string) => void; readonly progress: (text: string) => void }

/**
 * Runs the demo.
 * @returns the exit code: 0 if everything was as promised, 130 after an interruption, else 1
 * @throws {Error} where it cannot begin
 */
export async function runDemo(options: DemoOptions, { result, progress }: DemoOutput): Promise<number> {
  requireRoot()
  using place = takePlace(options.name)
  const interrupt = interruption(progress)
  using _ = interrupt
  await removeOld(place, progress)
  refuseTaken(place)
  const begin = performance.now()
  const stage: Stage = {
    place,
    state: emptyState(options),
    report: emptyReport(),
    say: text => progress(`${((performance.now() - begin) / 1000).toFixed(1).padStart(5)} s  ${text}`),
    signal: interrupt.signal,
  }
  place.save(stage.state)
  const { report } = stage
  await using owned = new AsyncDisposableStack()
  let scene: Scene | undefined
  try {
    scene = await setScene(stage, options.cloud === undefined ? undefined : whereIsCloud(options), owned)
    await perform(stage, scene, owned)
  } catch (error) {
    report.failure = interrupt.signal.aborted ? 'interrupted' : (error as Error).message
  }
  const keep = options.keep && report.failure === undefined
  if (keep) leave(stage)
  else await finish(stage, scene)
  report.seconds = (performance.now() - begin) / 1000
  result(options.json ? reportJson(report) : texts(report, keep))
  if (keep && !options.json) result(howToGoOn(stage))
  return interrupt.signal.aborted ? 130 : isAsPromised(report) ? 0 : 1
}

/** Ends a demo that was kept, or that was killed. @returns the exit code */
export async function cleanDemo({ name }: Pick<DemoOptions, 'name'>, { progress }: DemoOutput): Promise<number> {
  requireRoot()
  using place = takePlace(name)
  const state = place.load()
  if (state === undefined) {
    place.remove()
    progress('there is nothing to clean up')
    return 0
  }
  const faults = await clean(place, state)
  for (const fault of faults) progress(fault)
  progress(
    faults.length === 0 ? 'nothing is left' : `not everything is gone: try again, ${place.directory} knows the rest`,
  )
  return faults.length === 0 ? 0 : 1
}

function requireRoot(): void {
  if (process.getuid?.() !== 0)
    throw new Error('Cannot show anything: network namespaces need root. Remedy: sudo ./mooring demo')
}

const whereIsCloud = ({ vmPrefix, outside }: DemoOptions) => ({
  netnsOf: (server: string) => netnsPath(vmPrefix + server),
  outsideNetns: netnsPath(outside),
})

const emptyState = ({ cloud }: DemoOptions): State => ({
  kept: false,
  cloud,
  cloudsFile: process.env['OS_CLIENT_CONFIG_FILE'],
  machines: [],
  namespaces: [],
  pods: [],
  floatingIps: [],
  processes: [],
})

const emptyReport = (): Report => ({
  cloud: '',
  network: '',
  attached: [],
  furtherMs: [],
  comparison: undefined,
  passages: [],
  leftovers: [],
  failure: undefined,
  seconds: 0,
})

/** Ctrl-C ends the demo, and the cleaning up is not interrupted. */
function interruption(progress: (text: string) => void): Disposable & { signal: AbortSignal } {
  const controller = new AbortController()
  const onSignal = () => {
    progress(controller.signal.aborted ? 'still cleaning up' : 'interrupted: cleaning up')
    controller.abort(new Error('interrupted'))
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.on(signal, onSignal)
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const signal of signals) process.off(signal, onSignal)
    },
  }
}

/** A demo that was killed is cleaned up first; one that was kept is the user's. */
async function removeOld(place: Place, progress: (text: string) => void): Promise<void> {
  const old = place.load()
  if (old === undefined) return
  if (old.kept)
    throw new Error(
      `Cannot start: a demo called "${place.name}" was kept. Remedy: mooring demo --clean --name ${place.name}`,
    )
  progress('an earlier demo was killed: cleaning up behind it')
  const faults = await clean(place, old)
  if (faults.length > 0) throw new Error(`Cannot clean up behind an earlier demo: ${faults.join('; ')}`)
}

/** At the end everything of the demo's name is removed: nothing may have it before. @throws {Error} */
function refuseTaken({ name }: Place): void {
  const [taken] = listNetns(`${name}-`)
  if (taken !== undefined)
    throw new Error(
      `Cannot start: network namespace ${taken} is there already, and is none of this demo. Remedy: choose another --name`,
    )
}

async function clean(place: Place, state: State): Promise<string[]> {
  const steps = new Steps()
  // The simulated cloud may be dead; what was in it is gone with it.
  if (state.cloudsFile !== undefined) process.env['OS_CLIENT_CONFIG_FILE'] = state.cloudsFile
  const isReachable = state.cloud !== undefined || (state.cloudsFile !== undefined && existsSync(state.cloudsFile))
  if (isReachable)
    await steps.attempt('take the pods off the network', async () => {
      await using cloud = await openDemoCloud(state)
      await detachAll(place, state, cloud, steps)
      await stopAgents(place, state, cloud, steps)
    })
  await removeAll(place, state, steps)
  return steps.faults
}

function leave({ place, state }: Stage): void {
  state.kept = true
  place.save(state)
}

const texts = (report: Report, keep: boolean): string =>
  [
    ...(report.attached.length === 0 ? [] : [podTable(report), '']),
    ...(report.passages.length === 0 ? [] : [passageTable(report), '']),
    ...(keep ? [] : [closing(report)]),
  ].join('\n')

function howToGoOn({ place, state }: Stage): string {
  const [pod] = state.pods
  const [machine] = state.machines
  const inside = (netns: string, command: string) => `  ip netns exec ${netns.split('/').at(-1)} ${command}`
  return [
    'It stands. Look around:',
    ...(pod === undefined ? [] : [inside(pod.netns, 'ip address'), inside(pod.netns, 'ip route')]),
    ...(machine === undefined
      ? []
      : [
          inside(machine.netns, 'ip route'),
          inside(machine.netns, 'ip neighbour show proxy'),
          `  tail ${place.file(machine.name, 'agent.log')}`,
          ...(pod === undefined
            ? []
            : [
                `  ${LAUNCHER} inspect ${pod.netns} --netns ${machine.netns} --data-dir ${place.file(machine.name, 'data')}`,
              ]),
        ]),
    `  export OS_CLIENT_CONFIG_FILE=${state.cloudsFile} OS_CLOUD=${state.cloud ?? 'mooring'}`,
    ...(pod === undefined ? [] : ['Take a pod off the network by hand:', `  ${byHand(place, pod, LAUNCHER)}`]),
    'End it:',
    `  ${LAUNCHER} demo --clean --name ${place.name}`,
  ].join('\n')
}
