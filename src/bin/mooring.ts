// SPDX-License-Identifier: Apache-2.0

// The command `mooring`. Each command loads its own rooms only when it is run.

import { Command, Option } from 'commander'
import release from '../../package.json' with { type: 'json' }
import { DATA_DIR, modes, SETTINGS, SOCKET } from './settings.ts'

const dataDir = () => new Option('--data-dir <dir>', 'journal and spool').env('MOORING_DATA_DIR').default(DATA_DIR)

const nodeNetns = () =>
  new Option('--netns <path>', "the node's network namespace, where it is not this process's").env('MOORING_NETNS')

const settings = () =>
  new Option('--config <file>', 'the file that tells shims what to do').env('MOORING_CONFIG').default(SETTINGS)

const confDir = () =>
  new Option('--conf-dir <dir>', "the node's network lists").env('NETCONFPATH').default('/etc/cni/net.d')

const program = new Command('mooring')
  .description('A complete CNI suite that ties Kubernetes pods to OpenStack networks')
  .version(release.version, '-V, --version', 'print the version')
program.addHelpText(
  'after',
  '\n  mooring test [--all]     runs the tests (mooring test --help)\n  mooring bench [--quick]  measures beside the Go plugins (mooring bench --help)',
)

program
  .command('agent')
  .description('run the node agent in the foreground')
  .addOption(new Option('--socket <path>', 'where to listen for shims').env('MOORING_SOCKET').default(SOCKET))
  .addOption(dataDir())
  .addOption(nodeNetns())
  .addOption(
    new Option('--reconcile <seconds>', 'how often records are compared with the node')
      .env('MOORING_RECONCILE')
      .default('10'),
  )
  .addOption(
    new Option('--log-level <level>', 'what is logged')
      .choices(['debug', 'info', 'warn', 'error'])
      .env('MOORING_LOG_LEVEL')
      .default('info'),
  )
  .addOption(
    new Option(
      '--requests-per-second <number>',
      "this node's share of the requests that its cloud permits, where it limits them",
    ).env('MOORING_REQUESTS_PER_SECOND'),
  )
  .addOption(
    new Option('--metrics <address:port>', 'where Prometheus may ask, such as 127.0.0.1:9464').env('MOORING_METRICS'),
  )
  .option('--no-warm-up', 'do not attach pods of nobody after the start to make the first real ones fast')
  .action(async options => {
    const { runAgent } = await import('./agent.ts')
    await runAgent(options)
  })

program
  .command('plugin')
  .argument('<type>', 'such as veth-route')
  .argument('[starting]', 'descriptor of the lock that says that this call has begun, as a shim passes it')
  .description('one plugin call in one process: environment and stdin as a container runtime gives them')
  .action(async (type: string, starting?: string) => {
    const { runPlugin } = await import('./one-shot.ts')
    process.exitCode = await runPlugin(type, process.env, starting)
  })

program
  .command('cni')
  .description('cnitool: add, check, del, gc, status by hand (mooring cni --help)')
  .helpOption(false)
  .allowUnknownOption()
  .allowExcessArguments()
  .argument('[arguments...]')
  .action(async (args: string[]) => {
    const { runCnitool } = await import('#cnitool')
    // Plugins run in process groups of their own, which an interrupt from the terminal does not reach.
    const stop = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stop.abort())
    process.exitCode = await runCnitool(args, process.env, stop.signal)
  })

program
  .command('install')
  .description("put one executable per plugin into the runtime's directory")
  .requiredOption('--cni-bin <dir>', "the runtime's plugin directory, mostly /opt/cni/bin")
  .addOption(new Option('--mode <mode>', 'what a shim does without an agent; at first standalone').choices(modes))
  .addOption(settings())
  .option('--replace', 'take names that are of other plugins, and keep those as NAME.upstream')
  .addOption(new Option('--socket <path>', `the agent's socket; at first ${SOCKET}`).env('MOORING_SOCKET'))
  .addOption(new Option('--data-dir <dir>', `journal and spool; at first ${DATA_DIR}`).env('MOORING_DATA_DIR'))
  .addHelpText(
    'after',
    '\nWhat is not given of mode, socket and data directory stays as an earlier installation has it.',
  )
  .action(async options => {
    const { install } = await import('./install.ts')
    for (const line of await install(options)) console.log(line)
  })

program
  .command('uninstall')
  .description('remove what install put there')
  .requiredOption('--cni-bin <dir>', "the runtime's plugin directory")
  .addOption(settings())
  .action(async options => {
    const { uninstall } = await import('./install.ts')
    for (const line of await uninstall(options)) console.log(line)
  })

program
  .command('simulator')
  .description('run a simulated OpenStack in the foreground: Keystone, Neutron and Nova, for tests and to try things')
  .option('--port <port>', 'port on 127.0.0.1; 0 is a free one', '0')
  .option(
    '--dataplane [prefix]',
    'with real packets, in network namespaces PREFIX-vm-SERVER, PREFIX-outside, ... (root)',
  )
  .option('--clouds-yaml <file>', 'where to write the credentials, for its owner alone')
  .option('--demo-json <file>', 'where to write the ids of its objects, once it is ready')
  .addOption(new Option('--latency <kind>', 'how long it takes').choices(['quick', 'recorded']).default('quick'))
  .option('--wire-delay <ms>', 'from an answer until it is true on the wire', '1200')
  .action(async options => {
    const { simulate } = await import('./simulator.ts')
    await simulate(options, console.log)
  })

program
  .command('demo')
  .description('show pods on Neutron addresses, by real packets, and clean up (root)')
  .option(
    '--cloud <name>',
    'a cloud of clouds.yaml whose servers are network namespaces of this machine (lab/openstack)',
  )
  .option('--vm-prefix <prefix>', 'with --cloud: server NAME runs in the namespace PREFIX and NAME', 'vm-')
  .option('--outside <netns>', 'with --cloud: the namespace of a host outside', 'oslab-ext')
  .option('--keep', 'leave it standing, and say how to look around', false)
  .option('--clean', 'end a demo that was kept', false)
  .option('--json', 'the result for machines', false)
  .option('--name <name>', 'of its directory in /run and of its namespaces', 'mooring-demo')
  .action(async ({ clean, ...options }) => {
    const { cleanDemo, runDemo } = await import('#demo')
    const output = { result: console.log, progress: (text: string) => console.error(`demo: ${text}`) }
    process.exitCode = clean ? await cleanDemo(options, output) : await runDemo(options, output)
  })

const ip = program.command('ip').description("this node's addresses of Neutron, as the journal knows them (root)")
const conflist = () =>
  new Option('--conflist <file...>', 'network lists whose inline credentials are needed, instead of those of the node')
const print = ({
  lines,
  warnings,
  complete,
}: {
  lines: readonly string[]
  warnings: readonly string[]
  complete: boolean
}) => {
  for (const line of lines) console.log(line)
  for (const text of warnings) console.error(`mooring: ${text}`)
  if (!complete) process.exitCode = 1
}
const LEASE_STATES = ['foreign', 'making', 'free', 'assigned', 'releasing', 'removing', 'quarantined']
ip.command('list')
  .description('all of them: foreign, making, free (the reserve), assigned, releasing, quarantined')
  .addOption(new Option('--state <state...>', 'of these states only').choices(LEASE_STATES).default([]))
  .option('--network <name>', 'of attachments of this network only')
  .option('--pod <pod>', 'of this pod only: POD or NAMESPACE/POD')
  .option('--json', 'for machines', false)
  .addOption(dataDir())
  .action(async options => {
    const { listAddresses } = await import('./addresses.ts')
    print(await listAddresses(options))
  })
ip.command('free')
  .description('how many a pod could have: of each pool at once, and of its subnet and quota in Neutron')
  .option('--json', 'for machines', false)
  .addOption(conflist())
  .addOption(confDir())
  .option('--timeout <seconds>', 'for all clouds together', '20')
  .addOption(dataDir())
  .action(async options => {
    const { showFree } = await import('./addresses.ts')
    print(await showFree(options))
  })
ip.command('reserve <count>')
  .description('make so many addresses ahead, of each subnet, and keep them free for a time; 0 ends it')
  .option('--for <minutes>', 'how long', '60')
  .option('--pool <id>', 'in this one only: the id of its Neutron port, or as mooring ip free --json names it')
  .addOption(conflist())
  .addOption(confDir())
  .option('--timeout <seconds>', 'for all ports together', '120')
  .addOption(dataDir())
  .addOption(nodeNetns())
  .action(async (count: string, options) => {
    const { makeReserve } = await import('./addresses.ts')
    print(await makeReserve(count, options))
  })
for (const [verb, what] of [
  ['adopt', 'take an address in quarantine, or a whole port, for ours and free: you know that nobody has it'],
  ['release', 'take an address in quarantine off its port, or delete a whole port'],
] as const)
  ip.command(`${verb} <address>`)
    .description(what)
    .addOption(conflist())
    .addOption(confDir())
    .option('--port <id>', 'the Neutron port, where several have the address')
    .option('--timeout <seconds>', 'for the cloud', '20')
    .addOption(dataDir())
    .addOption(nodeNetns())
    .action(async (address: string, options) => {
      const { decide } = await import('./addresses.ts')
      print(await decide(verb, address, options))
    })

program
  .command('ports')
  .description('show what Neutron and Nova hold for this node, or for servers, port by port, and whose it is (root)')
  .option(
    '--server <address>',
    'servers with this address, fixed or floating, instead of this node; may be repeated',
    (address: string, others: string[]) => [...others, address],
    [] as string[],
  )
  .option('--without-primary', "leave out the servers' own addresses, and ports that have no others", false)
  .option('--cloud <name>', 'a cloud of clouds.yaml, instead of those that the network lists name')
  .option('--conflist <file...>', 'network lists, instead of those of the node')
  .addOption(confDir())
  .option('--json', 'for machines', false)
  .option('--timeout <seconds>', 'for all of it', '60')
  .addOption(dataDir())
  .addOption(nodeNetns())
  .action(async options => {
    const { showPorts } = await import('./ports.ts')
    print(await showPorts(options))
  })

program
  .command('inspect <target>')
  .description("show a container's network on one page, from both sides, and what differs from the journal (root)")
  .addHelpText(
    'after',
    '\nTARGET is a namespace (name or path), a PID, a container id or its beginning, or [NAMESPACE/]POD.',
  )
  .option('--json', 'for machines', false)
  .addOption(dataDir())
  .addOption(nodeNetns())
  .action(async (target: string, options) => {
    const { inspect } = await import('./inspect.ts')
    print(await inspect(target, options))
  })

program
  .command('netns <pid> [name]')
  .description("make a process's network namespace visible to `ip netns` (root)")
  .option('--remove', 'take the name back, or all names of the process', false)
  .action(async (pid: string, name: string | undefined, options: { remove: boolean }) => {
    const { forgetNetns, nameNetns } = await import('./netns.ts')
    if (options.remove) for (const removed of forgetNetns(name ?? pid)) console.log(`removed ${removed}`)
    else console.log(nameNetns(pid, name))
  })

program
  .command('exec <target> [command...]')
  .usage('[options] <target> -- <command...>')
  .description("run a command in a container's network namespace (root)")
  .addOption(dataDir())
  .action(async (target: string, command: string[], options) => {
    const { runIn } = await import('./exec.ts')
    process.exitCode = await runIn(target, command, options)
  })

program
  .command('nic')
  .description('NICs of the node (root)')
  .command('move <device> <place>')
  .description('move a NIC into a container (as for inspect), or back to the node ("host") with all that it had (root)')
  .option('--name <name>', 'its name there')
  .option('--from <place>', 'with "host": where it is, if it was moved by other means')
  .option('--force', "although the node's default route leads through it", false)
  .addOption(dataDir())
  .addOption(nodeNetns())
  .action(async (device: string, place: string, options) => {
    const { moveNic } = await import('./nic.ts')
    console.log(await moveNic(device, place, options))
  })

program
  .command('drain')
  .description("take everything that no pod uses off the node's Neutron ports, while no agent runs (root)")
  .addOption(dataDir())
  .option('--conflist <file...>', 'network lists whose inline credentials are needed')
  .option('--force', 'although attachments are in use; they keep their addresses')
  .option('--timeout <seconds>', 'for all ports together', '120')
  .action(async options => {
    const { drain } = await import('./drain.ts')
    const { lines, complete } = await drain(options)
    for (const line of lines) console.log(line)
    if (!complete) process.exitCode = 1
  })

const ofRoot = new Set(['ip', 'ports', 'inspect', 'netns', 'exec', 'nic', 'drain'])
program.hook('preAction', () => {
  const [name = ''] = program.args
  // Without rights there would be no journal, no process and no container.
  if (ofRoot.has(name) && process.getuid?.() !== 0)
    throw new Error(`Cannot run mooring ${name}: it looks at what is root's. Run it as root`)
})

// Who reads has gone, or has no room: what was begun is finished all the same, and a demo cleans up.
program.hook('preAction', (_, command) => {
  // It writes by descriptor, which Node's streams would change for all who have it.
  if (command.name() === 'agent') return
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      process.once('exit', () => {
        process.exitCode ||= 1
      })
      if (stream === process.stdout && error.code !== 'EPIPE') console.error(`mooring: Cannot write: ${error.message}`)
    })
})

try {
  await program.parseAsync()
} catch (error) {
  const message = error instanceof Error ? error.message : String(error)
  // Of a system call that nobody expected to fail, which names path and reason, but not what it was for.
  const action = error instanceof Error && 'syscall' in error ? `Cannot run mooring ${program.args[0]}: ` : ''
  console.error(`mooring: ${action}${message}`)
  process.exitCode = 1
}
