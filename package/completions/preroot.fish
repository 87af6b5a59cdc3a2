# Completion of preroot for fish.

set --local with_options provision prefetch report lease

complete -c preroot -f
complete -c preroot -n __fish_use_subcommand -l help -d 'Show the commands and options'
complete -c preroot -n __fish_use_subcommand -l version -d 'Show the version'
complete -c preroot -n __fish_use_subcommand -a provision -d 'Everything for this boot, then exit'
complete -c preroot -n __fish_use_subcommand -a prefetch -d 'Begin with what needs no root'
complete -c preroot -n __fish_use_subcommand -a init -d 'Be /init of an initramfs'
complete -c preroot -n __fish_use_subcommand -a report -d 'Tell the platform ready or failed'
complete -c preroot -n __fish_use_subcommand -a lease -d 'Keep the lease of this machine'
complete -c preroot -n __fish_use_subcommand -a status -d 'What happened on this boot'

complete -c preroot -n '__fish_seen_subcommand_from status' -l json -d 'For programs'

set --local no_report 'not __fish_seen_subcommand_from ready failed'
complete -c preroot -n "__fish_seen_subcommand_from report; and $no_report" -a ready -d 'This machine is ready'
complete -c preroot -n "__fish_seen_subcommand_from report; and $no_report" -a failed -d 'The initramfs failed'
complete -c preroot -n '__fish_seen_subcommand_from failed' -l reason -x -d 'Why'

set --local taken "__fish_seen_subcommand_from $with_options"
complete -c preroot -n "$taken" -l root -x -a '(__fish_complete_directories)' -d 'The real root'
complete -c preroot -n "$taken" -l wait-root -x -d 'Seconds until it is a mount point'
complete -c preroot -n "$taken" -l platform -x -a 'auto azure' -d 'Whether the firmware is asked'
complete -c preroot -n "$taken" -l nic -x -a '(__fish_print_interfaces)' -d 'Use this interface'
complete -c preroot -n "$taken" -l media -r -F -d 'Read this device or image'
complete -c preroot -n "$taken" -l disc-reader -x -a 'auto own kernel' -d 'Who reads the disc'
complete -c preroot -n "$taken" -l vm-id -x -d 'Instead of the UUID of the firmware'
complete -c preroot -n "$taken" -l ready -x -a 'rooted early later never' -d 'When the platform is told'
complete -c preroot -n "$taken" -l network -x -a 'auto release keep' -d 'What becomes of the interface'
complete -c preroot -n "$taken" -l output -x -a 'auto files credentials' -d 'Who makes the changes'
complete -c preroot -n "$taken" -l steps -x -a "(__fish_append , hostname user password keys sudo sshd hostkeys customdata markers)" -d 'What is done'
complete -c preroot -n "$taken" -l sudo -x -a 'auto nopasswd password never' -d 'Whether it asks for a password'
complete -c preroot -n "$taken" -l system-users -x -a 'refuse allow' -d 'Whether the user may be one of the image'
complete -c preroot -n "$taken" -l root-password -x -a 'keep lock' -d 'What becomes of it'
complete -c preroot -n "$taken" -l customdata.exec -x -a 'yes no' -d 'Run custom data that starts with #!'
complete -c preroot -n "$taken" -l cloud-init -x -a 'off userdata' -d 'What is left for it'
complete -c preroot -n "$taken" -l report-host-key -x -a 'yes no' -d 'Publish its fingerprint'
complete -c preroot -n "$taken" -l timeout -x -d 'The whole budget in seconds'
complete -c preroot -n "$taken" -l dry-run -d 'Print what would be changed'
complete -c preroot -n "$taken" -l log -x -a 'auto kmsg stderr' -d 'Where messages go'
